"""The store as sessions see it: who asks, what may be lost, and what its refusals mean to a client."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from acclimate.runtime.clock import Clock
from acclimate.runtime.errors import Aborted, DataLoss, ResourceExhausted, Unavailable
from acclimate.runtime.sessions.bounds import Bounds
from acclimate.runtime.sessions.store_thread import StoreThread
from acclimate.runtime.store.base import Accept, Damaged, Key, OwnedElsewhere, Store, StoreError

log = structlog.stdlib.get_logger("acclimate.store")

RETRY_SECONDS = 1.0
EXPIRED_TOGETHER = 1000


@dataclass
class Keeping:
    """A store and how it is used.

    Attributes:
        thread: where it is asked.
        bounds: what a crash may lose.
        clock: names the clock that budgets run on: this process's, or the samples of a session.
        synchronous: whether replies wait for steps.
        take_over: whether sessions are taken from other daemons that are alive.
        max_sessions: sessions that may be stored.
        damaged: records that did not hold when they were asked for.
    """

    thread: StoreThread
    bounds: Bounds
    clock: str
    synchronous: bool = False
    take_over: bool = False
    max_sessions: int = sys.maxsize
    damaged: int = field(default=0, init=False)

    @property
    def store(self) -> Store:
        """What the thread asks."""
        return self.thread.store

    async def claim(self, key: Key, now: float, accept: Accept) -> tuple[Any, int] | None:
        """`Store.claim`; its refusals are a client's errors."""
        with self.told(key[2]):
            return await self.thread.call(self.store.claim, key, now, accept, take_over=self.take_over)

    async def holds(self, key: Key, now: float) -> bool:
        """`Store.holds`, likewise; a record that has expired is cleared away, so that its name is free."""
        with self.told(key[2]):
            if not await self.thread.look(self.store.holds, key):
                return False
            await self.thread.call(self.store.expire, now, EXPIRED_TOGETHER)
            return await self.thread.look(self.store.holds, key)

    async def remove(self, key: Key) -> int | None:
        """`Store.remove`, likewise."""
        with self.told(key[2]):
            return await self.thread.call(self.store.remove, key, take_over=self.take_over)

    def refuse_full(self, stored: int) -> None:
        """Whether another session may be added to so many.

        Raises:
            ResourceExhausted: the store holds as many as it may.
        """
        if stored >= self.max_sessions:
            raise ResourceExhausted(
                "STORE_FULL",
                f"{stored} sessions are stored, as many as store.max_sessions allows; delete some",
                limit=self.max_sessions,
            )

    @contextmanager
    def told(self, session_id: str) -> Iterator[None]:
        """Turn what a store raises into what a client is told."""
        try:
            yield
        except Damaged as error:
            self.damaged += 1
            log.error("a session's record does not hold; it is left as it is", session=session_id, error=str(error))
            raise DataLoss(
                "SESSION_DAMAGED",
                f"session {session_id!r} cannot be brought back: {error}; its record is kept as it is "
                "(`acclimate store check`); delete the session to begin anew",
                session=session_id,
            ) from error
        except OwnedElsewhere as error:
            raise Aborted(
                "SESSION_OWNED_ELSEWHERE",
                f"session {session_id!r} is held by daemon {error.owner!r}, which is alive; ask that one, or stop it "
                "first (store.take_over would take the session from it)",
                retry_after_seconds=RETRY_SECONDS,
                session=session_id,
                owner=error.owner,
            ) from error
        except StoreError as error:
            raise Unavailable(
                "STORE_FAILING",
                f"session {session_id!r}: the store cannot be asked; the daemon's log says why",
                retry_after_seconds=RETRY_SECONDS,
                session=session_id,
            ) from error


def steady_wall(clock: Clock) -> Callable[[], float]:
    """The wall's time when the process began, and on from there.

    Jumps that the wall clock makes later neither keep a session alive nor end it.
    """
    offset = clock.wall() - clock.monotonic()
    return lambda: clock.monotonic() + offset
