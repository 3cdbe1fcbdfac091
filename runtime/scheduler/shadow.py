"""Answers of adapted sessions, a few of them, given once more by the source's model to compare.

It runs on a thread of its own after the client has been answered, one request at a time, and only while no prediction
waits: what comes meanwhile is not compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from acclimate.adapters.accuracy import Scores, score
from acclimate.runtime.scheduler.compute import lower_priority
from acclimate.runtime.scheduler.tickets import Answer, Ticket

log = structlog.stdlib.get_logger("acclimate.shadow")

MOST_ROWS = 32
"""Rows of a request that are compared."""


class Shadow:
    """Chooses the requests, and has them answered again; touched on the event loop's thread only.

    Args:
        every: one of so many samples of adapted sessions is compared; 0: none.
        idle: whether no prediction waits.
        compared: told of the ticket, its answer, and the source's.
    """

    def __init__(
        self, every: int, idle: Callable[[], bool], compared: Callable[[Ticket, Answer, Scores], None]
    ) -> None:
        self._every = every
        self._idle = idle
        self._compared = compared
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shadow", initializer=lower_priority)

    def offer(self, ticket: Ticket, answer: Answer) -> None:
        """An answer was given; compare it if its turn has come."""
        if self._every == 0 or ticket.folded is None:
            return
        self._waiting += min(len(ticket.inputs), MOST_ROWS)
        if self._waiting < self._every or self._task is not None or not self._idle():
            return
        self._waiting = 0
        self._task = asyncio.get_running_loop().create_task(self._compare(ticket, answer), name="shadow")

    def release(self) -> None:
        """Begin nothing any more; what is under way may end."""
        self._every = 0
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _compare(self, ticket: Ticket, answer: Answer) -> None:
        try:
            frozen = await asyncio.get_running_loop().run_in_executor(
                self._pool, ticket.engine.frozen, ticket.inputs[:MOST_ROWS]
            )
            self._compared(ticket, answer, score(frozen))
        except Exception:
            # The client has its answer; a model that was unloaded meanwhile is no reason to trouble anyone.
            log.debug("an answer could not be compared", model=ticket.engine.manifest.name, exc_info=True)
        finally:
            self._task = None
