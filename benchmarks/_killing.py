"""Rounds of kill -9: a daemon learns under load, is killed, and the next one opens what it left.

Watchers of the daemon note every commit with the moment it was made. What the next daemon does not have of these was
lost; whatever was committed after the last event that came through is not known, and cannot be missed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.client import Client, ClientError
from acclimate.runtime.client.local import local_daemon
from acclimate.runtime.wiring import store_tools

ROWS = 4
CONFIG = """
[store]
path = "sessions.db"
{store}

[budget]
refill_ms_per_s = 1e6
capacity_ms = 1e9
process_refill_ms_per_s = 1e6
process_capacity_ms = 1e9

[logging]
level = "error"
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """What one kill cost.

    Attributes:
        commits: commits that watchers saw before the kill; lost_commits: those that the next daemon did not have.
        lost_seconds: from the first lost commit to the last: that much learning has to be done again.
        age_seconds: how old the oldest lost commit was when the daemon was killed.
        sessions, opened: sessions that were stored, and those that the next daemon opened.
        damaged: records whose checksum did not hold.
        restart_seconds: until the next daemon was ready.
    """

    commits: int
    lost_commits: int
    lost_seconds: float
    age_seconds: float
    sessions: int
    opened: int
    damaged: int
    restart_seconds: float


@dataclass
class Seen:
    """Commits by session: version to Unix time."""

    commits: dict[str, dict[int, float]] = field(default_factory=dict)
    killed_at: float = 0.0

    @property
    def count(self) -> int:
        """All of them."""
        return sum(len(versions) for versions in self.commits.values())


def rounds(
    folder: Path, bundle: Path, count: int, *, sessions: int = 8, seed: int = 0, store: str = ""
) -> Iterator[Loss]:
    """Kill a daemon `count` times, at moments chosen at random; `store` adds lines to that section of its file."""
    generator = np.random.default_rng(seed)
    config = folder / "acclimate.toml"
    config.write_text(CONFIG.format(store=store), encoding="utf-8")
    names = [f"cam-{number}" for number in range(sessions)]
    model, inputs = read_bundle(bundle).manifest.name, read_bundle(bundle).source.canary_inputs
    before: Seen | None = None
    for number in range(count + 1):
        checked = store_tools.check(folder / "sessions.db") if before is not None else None
        # A daemon does not come back at its address: nothing is to wait for it.
        daemons = local_daemon([bundle], "--config", str(config))
        with daemons as daemon, Client(daemon.target, reconnect=False) as client:
            versions = _opened(client, model, names, create=before is None)
            if before is not None and checked is not None:
                yield _loss(before, versions, checked, daemon.ready_seconds)
            if number == count:
                return
            before = _learn_and_kill(client, daemon.pid, model, versions, inputs, int(generator.integers(10, 200)))


def _opened(client: Client, model: str, names: list[str], *, create: bool) -> dict[str, int]:
    """Versions of the sessions that there are, each brought back from the store."""
    versions = {}
    for name in names:
        if create:
            client.create_session(model, name, recipe="norm", recipe_parameters={"batch_rows": ROWS})
        try:
            versions[name] = client.session(model, name).get().version
        except ClientError as error:
            if error.code == "NOT_FOUND":
                # It was created and killed within the bound; the next round begins it again.
                client.create_session(model, name, recipe="norm", recipe_parameters={"batch_rows": ROWS})
    return versions


def _learn_and_kill(
    client: Client, pid: int, model: str, versions: Mapping[str, int], inputs: NDArray[np.generic], commits: int
) -> Seen:
    """Feed every session at once, and kill the daemon when that many commits were seen."""
    seen, reached = Seen({name: {version: 0.0} for name, version in versions.items()}), threading.Event()
    target = seen.count + commits

    def note() -> None:
        try:
            for event in client.watch(model, resume_seconds=0.0):
                if event.version_after > event.version_before:
                    seen.commits.setdefault(event.session_id, {})[event.version_after] = event.at
                if seen.count >= target:
                    reached.set()
        except ClientError:
            reached.set()

    def feed(own: list[str], generator: np.random.Generator) -> None:
        try:
            while not reached.is_set():
                for name in own:
                    rows = inputs[generator.integers(0, len(inputs), ROWS)]
                    client.predict(model, rows, parameters={"sequence_id": name})
        except ClientError:
            reached.set()

    names = list(versions)
    threads = [threading.Thread(target=note, daemon=True)]
    threads += [
        threading.Thread(target=feed, args=(names[part::2], np.random.default_rng(part)), daemon=True)
        for part in range(2)
    ]
    for thread in threads:
        thread.start()
    reached.wait(120.0)
    seen.killed_at = time.time()
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(60.0)
    return seen


def _loss(before: Seen, versions: Mapping[str, int], checked: store_tools.Checked, restart: float) -> Loss:
    lost = [
        at
        for name, commits in before.commits.items()
        for version, at in commits.items()
        if version > versions.get(name, -1)
    ]
    return Loss(
        commits=before.count,
        lost_commits=len(lost),
        lost_seconds=max(lost) - min(lost) if lost else 0.0,
        age_seconds=before.killed_at - min(lost) if lost else 0.0,
        sessions=len(checked.records),
        opened=sum(found.key[2] in versions for found, _ in checked.records),
        damaged=checked.damaged + len(checked.complaints),
        restart_seconds=restart,
    )
