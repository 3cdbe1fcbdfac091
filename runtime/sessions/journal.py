"""What sessions have become and the store does not know yet, and the task that tells it.

Sessions are marked on the event loop; copies of their rows are taken there too, a batch at a time, and written on the
store's thread. The bound on what a crash may lose is held by making the learner wait: `room` says when more commits
fit in. Nothing else waits for the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog

from acclimate.runtime.clock import Clock
from acclimate.runtime.histograms import SECONDS, Buckets
from acclimate.runtime.sessions.bounds import Bounds, Patience
from acclimate.runtime.sessions.recording import Moment, records_of
from acclimate.runtime.sessions.session import Session, SessionKey
from acclimate.runtime.sessions.store_thread import StoreThread
from acclimate.runtime.sessions.unwritten import Entry, Unwritten
from acclimate.runtime.store.base import REMEMBERED, Batch, Reply, StoreError, Write, Written, describe

log = structlog.stdlib.get_logger("acclimate.journal")

# Sessions in one transaction, so that none holds the store's thread for long.
BATCH = 64
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.1, 5.0


@dataclass(slots=True)
class Tally:
    """Since the daemon started; the names are `StoreSnapshot`'s."""

    transactions: int = 0
    failures: int = 0
    written: int = 0
    written_bytes: int = 0
    write_times: Buckets = field(default_factory=lambda: Buckets(SECONDS))
    fenced: int = 0


@dataclass(frozen=True)
class Hooks:
    """What the journal asks of its owner.

    Attributes:
        moment: when a session is recorded.
        expires_at: when its record is deleted for good unless written again, Unix seconds, or None.
        fenced: called with a session that another daemon has taken over.
    """

    moment: Callable[[Session], Moment]
    expires_at: Callable[[Session], float | None]
    fenced: Callable[[Session], None]


class Journal:
    """The unwritten, and the task that writes. Touched on the event loop's thread only, but for `figures`."""

    def __init__(self, thread: StoreThread, bounds: Bounds, clock: Clock, hooks: Hooks) -> None:
        self._thread = thread
        self._bounds = bounds
        self._clock = clock
        self._hooks = hooks
        self._waiting, self._flying = Unwritten(), Unwritten()
        self._epochs: dict[SessionKey, int] = {}
        self._described: set[str] = set()
        self._replies: deque[Reply] = deque(maxlen=REMEMBERED)
        self._wake = asyncio.Event()
        self._turn = asyncio.Event()
        self._retry = FIRST_RETRY_SECONDS
        self._draining = self._ended = False
        self.failing = False
        self._tally = Tally()

    @property
    def commits(self) -> int:
        """Commits, and deletions, that are not written yet."""
        return self._waiting.commits + self._flying.commits

    @property
    def mark(self) -> tuple[int, int]:
        """Differs from that of another moment if the store was written in between, or would have been."""
        return self._tally.transactions, self.commits

    @property
    def age(self) -> float:
        """Seconds that the oldest of them waits; 0 if there is none."""
        oldest = min(self._waiting.oldest, self._flying.oldest)
        return 0.0 if math.isinf(oldest) else max(0.0, self._clock.monotonic() - oldest)

    def figures(self) -> dict[str, Any]:
        """For `StoreSnapshot`; safe on any thread."""
        waiting = {"pending_commits": self.commits, "oldest_seconds": self.age, "failing": self.failing}
        return asdict(self._tally) | waiting | {"write_times": self._tally.write_times.frozen()}

    def adopt(self, session: Session, epoch: int) -> None:
        """The session came from the store, where it is owned under `epoch`."""
        self._epochs[session.key] = epoch

    def changed(self, session: Session, commit: bool) -> None:
        """The session is not what the store knows: by a `commit`, or by its counters alone."""
        if self._waiting.changed(session, commit, self._clock.monotonic()):
            self._wake.set()

    def deleted(self, session: Session) -> None:
        """The session is closed, and its record has to go."""
        self._waiting.forget(session.key)
        epoch = self._epochs.pop(session.key, None)
        if epoch is None and session.key in self._flying.entries:
            epoch = 1  # that of the insertion that is under way
        if epoch is not None:
            self._waiting.deleted(session.key, epoch, self._clock.monotonic())
            self._wake.set()

    def remember(self, reply: Reply) -> None:
        """Keep a reply, once the store knows what its request did."""
        self._replies.append(reply)

    def released(self, session: Session) -> None:
        """The session, which is `clean`, is closed and lives on in the store, for whoever asks first."""
        self._waiting.release(session.key, self._epochs.pop(session.key), self._clock.monotonic())
        self._wake.set()

    def let_go(self, key: SessionKey, epoch: int) -> None:
        """A record that was claimed is not needed after all."""
        self._waiting.release(key, epoch, self._clock.monotonic())
        self._wake.set()

    def clean(self, session: Session) -> bool:
        """Whether the store knows all of the session."""
        return session.key in self._epochs and session.key not in self._waiting and session.key not in self._flying

    def deleting(self, key: SessionKey) -> bool:
        """Whether a session was deleted, and its record is not yet."""
        return key in self._waiting.deletions or key in self._flying.deletions

    def growth(self, live: Iterable[Session]) -> int:
        """By how many records the store will have grown when all is written."""
        deletions = self._waiting.deletions | self._flying.deletions
        return sum(session.key not in self._epochs for session in live) - len(deletions)

    async def room(self, commits: int, patience: Patience) -> bool:
        """Wait until so many commits more are within the bound; False if patience ends before that."""
        while self._full(commits):
            if patience is Patience.NONE or self._ended:
                return False
            if self.failing and (patience is Patience.UNLESS_FAILING or self._draining):
                return False
            self._wake.set()
            await self._turn.wait()
        return True

    async def settle(self, keys: Iterable[SessionKey]) -> bool:
        """Write these sessions as they are now, or their deletions; False if the store fails."""
        wanted = {key for key in keys if key in self._waiting or key in self._flying}
        self._waiting.urgent |= wanted
        self._wake.set()
        while any(key in self._waiting.urgent or key in self._flying for key in wanted):
            if self.failing or self._ended:
                return False
            await self._turn.wait()
        return not self.failing

    async def run(self) -> None:
        """Write what is due until `end`."""
        while not self._ended:
            pause = self._pause()
            if pause > 0:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), None if math.isinf(pause) else pause)
                continue
            if not await self._write():
                await self._rest()

    def drain(self) -> None:
        """Nobody waits for a store that fails any more."""
        self._draining = True
        self._turn_over()

    def end(self) -> None:
        """Let `run` return."""
        self._ended = True
        self._wake.set()
        self._turn_over()

    async def finish(self) -> bool:
        """Write everything that is left once `run` has returned; whether that succeeded."""
        self._waiting.hurry_all()
        while self._waiting or self._replies:
            if not await self._write():
                return False
        return True

    def _full(self, commits: int) -> bool:
        unwritten = self.commits
        return unwritten > 0 and (unwritten + commits > self._bounds.commits or self.age >= self._bounds.seconds)

    def _pause(self) -> float:
        """Seconds until something is due."""
        waiting, now = self._waiting, self._clock.monotonic()
        if waiting.urgent or waiting.commits >= max(1, self._bounds.hurry * self._bounds.commits):
            return 0.0
        due = min(waiting.oldest, waiting.oldest_released) + self._bounds.hurry * self._bounds.seconds
        return max(0.0, min(due, waiting.oldest_touched + self._bounds.counter_seconds) - now)

    async def _rest(self) -> None:
        """Wait before the next try, twice as long each time."""
        delay, self._retry = self._retry, min(2 * self._retry, LAST_RETRY_SECONDS)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + delay
        while not self._ended and (left := give_up - loop.time()) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left)

    async def _write(self) -> bool:
        """One transaction; whether it succeeded. What it should have written waits again if not."""
        late = self._clock.monotonic() - self._bounds.counter_seconds
        taken = self._flying = self._waiting.take(BATCH, late)
        began = self._clock.monotonic()
        try:
            batch = self._batch(taken)
            written = await self._thread.call(self._thread.store.write, batch)
        except Exception as error:
            self._failed(error)
            return False
        else:
            self._succeeded(taken, batch, written, self._clock.monotonic() - began)
            return True
        finally:
            self._flying = Unwritten()
            self._turn_over()

    def _batch(self, taken: Unwritten) -> Batch:
        sessions = [entry.session for entry in taken.entries.values()]
        manifests = {session.cohort.engine.manifest.digest: session.cohort.engine.manifest for session in sessions}
        return Batch(
            deleted={key: giving.epoch for key, giving in taken.deletions.items()},
            writes=[
                Write(record, self._epochs.get(session.key, 0), self._hooks.expires_at(session))
                for session, record in zip(sessions, records_of(sessions, self._hooks.moment), strict=True)
            ],
            released={key: giving.epoch for key, giving in taken.released.items()},
            bundles={d: describe(manifest) for d, manifest in manifests.items() if d not in self._described},
            # What it says was done is done by then.
            replies=[reply for reply in self._replies if reply.session not in self._waiting],
        )

    def _succeeded(self, taken: Unwritten, batch: Batch, written: Written, seconds: float) -> None:
        tally = self._tally
        tally.transactions += 1
        tally.written += len(batch.writes)
        tally.written_bytes += written.bytes
        tally.write_times.add(seconds)
        self._described |= set(batch.bundles)
        kept = set(batch.replies)
        self._replies = deque((reply for reply in self._replies if reply not in kept), REMEMBERED)
        if self.failing:
            log.info("the store takes writes again", failures=tally.failures)
        self.failing, self._retry = False, FIRST_RETRY_SECONDS
        for entry in taken.entries.values():
            if entry.session.key in written.fenced:
                self._fenced(entry)
            elif entry.session.open:
                self._epochs.setdefault(entry.session.key, 1)

    def _fenced(self, entry: Entry) -> None:
        session = entry.session
        self._tally.fenced += 1
        if session.open:
            self._waiting.forget(session.key)
            self._epochs.pop(session.key, None)
            self._hooks.fenced(session)

    def _failed(self, error: Exception) -> None:
        self._tally.failures += 1
        if not self.failing:
            log.error(
                "the store cannot be written; sessions answer and do not learn until it can",
                error=str(error),
                exc_info=not isinstance(error, StoreError),
            )
        self.failing = True
        self._waiting.put_back(self._flying)

    def _turn_over(self) -> None:
        """Wake everybody who waits for the outcome of a write."""
        self._turn.set()
        self._turn = asyncio.Event()
