"""Mutated messages at every rpc of a real daemon, sent by one tenant about another's session.

    python -m benchmarks.fuzz [--json] [--messages N] [--seed N]

messages             mutated messages sent, over all rpcs in turn
defects              answers that only a defect gives: INTERNAL, UNKNOWN, DATA_LOSS, UNAVAILABLE, or a reply on a
                     stream that tells of an internal error; must be 0
defects_unseen       rpcs that by the daemon's own account ended so beyond these: streams that were left before they
                     failed; must be 0
refusals_compared    refused messages before and after which the sender's own sessions were compared
refusals_with_effect how many of those had changed a session all the same; must be 0
victim_changes       differences in the other tenant's session afterwards, and in what it answers from then on beside
                     a twin that nobody wrote about; must be 0
rss_growth_mb        resident memory after the storm, less that before it
messages_per_s       sent one after another, over one connection

The rows say how often each rpc answered with each status code. The process exits with 1 if something that must be 0
is not.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from acclimate.runtime.client import Client
from acclimate.runtime.client.local import LocalDaemon, local_daemon
from acclimate.runtime.security import tokens
from benchmarks._mutations import mutated
from benchmarks._prometheus import scraped
from benchmarks._report import ROOT, Report, Value, emit, parser
from benchmarks._rpcs import LANGUAGE, MODEL, Outcome, ask, messages, methods, richer

BUNDLE = ROOT / "examples" / "digits" / "bundle"
DEFECTS = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNAVAILABLE,
)
_NAMES = frozenset(code.name for code in DEFECTS)
SETTLED_SECONDS = 0.1
MUST_BE_0 = ("defects", "defects_unseen", "refusals_with_effect", "victim_changes")
VICTIM, TWIN = "shared", "spared"
# One message in so many is looked at from both sides.
COMPARE_EVERY = 10
# The sender sees to it this often that it has a session of the other's name itself, or has none.
TURN_EVERY = 200
CONFIG = """[security]
tokens = "tokens.json"
[quotas]
sessions = 40
"""


@dataclass(frozen=True)
class Arena:
    """A daemon with two tenants, connected to as both; `metadata` is the attacker's."""

    victim: Client
    attacker: Client
    operator: Client
    channel: grpc.Channel
    metadata: tuple[tuple[str, str], ...]
    daemon: LocalDaemon


def main(arguments: Sequence[str] | None = None) -> None:
    """Send, then print."""
    options = parser(__doc__)
    options.add_argument("--messages", type=int, default=10_000, help="messages to send (default 10000)")
    options.add_argument("--seed", type=int, default=0, help="of the mutations (default 0)")
    options.add_argument("--bundle", type=Path, default=BUNDLE, help="bundle of the digits")
    chosen = options.parse_args(arguments)
    if chosen.messages < 1:
        options.error(f"--messages is {chosen.messages}; at least 1 is needed")
    with arena(chosen.bundle) as ring:
        report = storm(ring, chosen.messages, random.Random(chosen.seed))  # noqa: S311 - not a secret
    emit(report, as_json=chosen.json)
    sys.exit(any(report.figures[name] for name in MUST_BE_0))


@contextmanager
def arena(bundle: Path) -> Iterator[Arena]:
    """A daemon in synchronous mode, where a reply means that the session has learnt from the request."""
    with tempfile.TemporaryDirectory() as folder:
        made = {name: tokens.create("tenant", name, "", time.time(), None) for name in ("alice", "mallory")}
        made["watcher"] = tokens.create("operator", "", "", time.time(), None)
        tokens.write(Path(folder, "tokens.json"), {entry.id: entry for _, entry in made.values()})
        config = Path(folder, "acclimate.toml")
        config.write_text(CONFIG, encoding="utf-8")
        given = {name: token for name, (token, _) in made.items()}
        with (
            local_daemon([bundle], "--config", str(config), "--synchronous", "--language-model", LANGUAGE) as daemon,
            Client(daemon.target, token=given["alice"]) as victim,
            Client(daemon.target, token=given["mallory"]) as attacker,
            Client(daemon.target, token=given["watcher"]) as operator,
            grpc.insecure_channel(daemon.target) as channel,
        ):
            metadata = (("authorization", f"Bearer {given['mallory']}"),)
            yield Arena(victim, attacker, operator, channel, metadata, daemon)


def storm(ring: Arena, count: int, source: random.Random) -> Report:
    """Send `count` messages, and compare both tenants' sessions before and after."""
    for name in (VICTIM, TWIN):
        _adapted(ring.victim, name)
    before, rss = _state(ring.victim, VICTIM), ring.operator.server_info().rss_bytes
    codes: Counter[tuple[str, str]] = Counter()
    compared = effects = defects = 0
    failed, left = _failed(ring), False
    began = time.perf_counter()
    for number, (method, payload) in enumerate(_attempts(source, count)):
        if number % TURN_EVERY == 0:
            _turn(ring.attacker, own=number // TURN_EVERY % 2 == 1)
        look = number % COMPARE_EVERY == 0
        if look and left:
            _settle(ring.attacker)
            left = False
        own = _listed(ring.attacker) if look else ()
        outcome = _send(ring, method, payload)
        # A stream without an end was left, and what it began may be done a moment later.
        left = left or (outcome.code is grpc.StatusCode.OK and not outcome.replies)
        codes[method, outcome.code.name] += 1
        if defective(outcome):
            defects += 1
            sys.stderr.write(f"defect: {method} {payload.hex()} -> {outcome.code.name} {outcome.message}\n")
        if look and outcome.code is not grpc.StatusCode.OK:
            compared += 1
            if _listed(ring.attacker) != own:
                effects += 1
                sys.stderr.write(f"effect: {method} {payload.hex()} -> {outcome.code.name} {outcome.message}\n")
    seconds = time.perf_counter() - began
    changes = _changes(before, _state(ring.victim, VICTIM))
    changes += _changes(_future(ring.victim, VICTIM), _future(ring.victim, TWIN))
    figures = {
        "messages": float(count),
        "defects": float(defects),
        "defects_unseen": _failed(ring) - failed - float(sum(n for (_, code), n in codes.items() if code in _NAMES)),
        "refusals_compared": float(compared),
        "refusals_with_effect": float(effects),
        "victim_changes": float(changes),
        "rss_growth_mb": (ring.operator.server_info().rss_bytes - rss) / 1e6,
        "messages_per_s": count / seconds,
    }
    return Report("fuzz", figures, _rows(codes))


def _failed(ring: Arena) -> float:
    """Rpcs that have ended as only a defect ends them, as the daemon counts them."""
    families = {family.name: family for family in text_string_to_metric_families(scraped(ring.daemon))}
    samples = families["acclimate_rpcs"].samples
    return sum(sample.value for sample in samples if sample.labels.get("code") in _NAMES)


def defective(outcome: Outcome) -> bool:
    """Whether only a defect answers so, be it in the status or, on a stream, in a reply."""
    return outcome.code in DEFECTS or any(b"internal error" in reply for reply in outcome.replies)


def _attempts(source: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Every rpc in turn, each time with another of its good messages, mutated."""
    good: dict[str, list[bytes]] = {
        method: [message.SerializeToString()] for method, message in messages(VICTIM).items()
    }
    for method, message in richer(VICTIM):
        good[method].append(message.SerializeToString())
    described = methods()
    for number in range(count):
        method = list(described)[number % len(described)]
        yield method, mutated(source, source.choice(good[method]), described[method])


def _turn(attacker: Client, own: bool) -> None:
    for view in attacker.list_sessions():
        attacker.delete_session(view.model, view.session_id)
    if own:
        _adapted(attacker, VICTIM)


def _settle(client: Client) -> None:
    """Wait until what streams that were left had begun is done."""
    seen, now = None, _listed(client)
    while seen != now:
        time.sleep(SETTLED_SECONDS)
        seen, now = now, _listed(client)


def _send(ring: Arena, method: str, payload: bytes) -> Outcome:
    return ask(ring.channel, method, payload, methods()[method], ring.metadata)


def _adapted(client: Client, name: str) -> None:
    """A session that has learnt twice, and has samples waiting for a third step."""
    session = client.create_session(MODEL, name, recipe="tent", recipe_parameters={"batch_rows": 16})
    for turn in range(5):
        session.predict(_images(turn), request_id=f"r{turn}")


def _future(client: Client, name: str) -> list[bytes]:
    """What a session answers from now on, as it goes on learning: equal for two only if all of their state is."""
    session = client.session(MODEL, name)
    return [session.predict(_images(100 + turn)).logits.tobytes() for turn in range(5)]


def _state(client: Client, name: str) -> list[Any]:
    exported = client.export_session(MODEL, name)
    tensors = [entry.values.tobytes() for entry in (*exported.parameters, *exported.statistics)]
    return [client.get_session(MODEL, name), exported.version, *tensors]


def _listed(client: Client) -> tuple[Any, ...]:
    """Sessions but those with a time-to-live, as a message before may have set: they end between two looks."""
    return tuple(view for view in client.list_sessions() if view.ttl_seconds is None)


def _changes(before: Sequence[Any], after: Sequence[Any]) -> int:
    return sum(one != other for one, other in zip(before, after, strict=True))


def _images(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (8, 1, 28, 28), np.uint8)


def _rows(codes: Mapping[tuple[str, str], int]) -> list[Mapping[str, Value]]:
    names = sorted({code for _, code in codes})
    return [
        {"rpc": method.rpartition(".")[2], **{code: codes.get((method, code), 0) for code in names}}
        for method in methods()
    ]


if __name__ == "__main__":
    main()
