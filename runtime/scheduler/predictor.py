"""Answering requests: a bounded queue, batches across sessions, one thread that computes.

Everything but the engine call runs on the event loop's thread, so sessions need no locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.accuracy import Scores, score
from acclimate.adapters.layout import Float
from acclimate.runtime.clock import Clock
from acclimate.runtime.engines.base import Engine, Folded
from acclimate.runtime.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from acclimate.runtime.inference import DEFAULT_PRIORITY
from acclimate.runtime.scheduler.around import MARK
from acclimate.runtime.scheduler.compute import compute_answers
from acclimate.runtime.scheduler.decide import Waiting, next_batch, place
from acclimate.runtime.scheduler.limits import PredictorLimits
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.sessions.terms import Terms


@dataclass(eq=False, slots=True)
class Ticket:
    """A request in the queue.

    `session` is None for stateless requests; times are monotonic seconds; `mark` is what an observer put on it.
    """

    engine: Engine
    session: Session | None
    inputs: NDArray[Any]
    arrived: float
    deadline: float | None
    learn: bool
    request_id: str
    answer: asyncio.Future[Answer] = field(repr=False)
    terms: Terms = field(default_factory=Terms, repr=False)
    priority: int = DEFAULT_PRIORITY
    mark: object | None = field(default=None, repr=False)

    @property
    def folded(self) -> Folded | None:
        """What answers it: the session's own parameters, or None for the frozen graph."""
        return None if self.session is None else self.session.folded

    @property
    def lane(self) -> Hashable:
        """Requests of one lane can run as one batch."""
        return id(self.engine), None if self.folded is None else id(self.session)


@dataclass(frozen=True, slots=True)
class Answer:
    """What answered, logits `[B, C]`, what they score, their parameters' version, and the time taken (seconds).

    `queued` until its batch was put together, in `gathered`; `computed` in the engine; `scored` from then on. `leads`
    is true for one answer of each batch.
    """

    engine: Engine
    logits: Float
    scores: Scores
    version: int
    queued: float
    computed: float
    batch_rows: int
    gathered: float = 0.0
    scored: float = 0.0
    leads: bool = True


Answered = Callable[[Ticket, Answer], None]


class Predictor:
    """The prediction queue and its worker.

    Args:
        limits: bounds of batches and queue.
        clock: the time.
        answered: called with every answer, before the client is told, to account for it.
        before_reply: awaited after each batch with its tickets, before the clients are told; synchronous mode
            learns here, so that a client that waits for its answer sees what it did to the session.
    """

    def __init__(
        self,
        limits: PredictorLimits,
        clock: Clock,
        answered: Answered,
        before_reply: Callable[[list[Ticket]], Awaitable[None]] | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._answered = answered
        self._before_reply = before_reply
        self._queue: deque[Ticket] = deque()
        self._serving: list[Ticket] = []
        self._wake = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._closing = False
        # Set while no prediction waits or runs; adaptation steps pause between slices until it is.
        self.idle = threading.Event()
        self.idle.set()

    def __len__(self) -> int:
        return len(self._queue)

    def admit(self, deadline: float | None) -> None:
        """Whether a request would be queued now, asked before anything is changed on its behalf.

        Raises:
            ResourceExhausted: the queue is full. Unavailable: draining. DeadlineExceeded: it has passed already.
        """
        if deadline is not None and self._clock.monotonic() >= deadline:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "the deadline passed before the request was queued")
        if self._closing:
            raise Unavailable("DRAINING", "the daemon is draining; send the request to another one")
        if len(self._queue) >= self._limits.max_queue:
            raise ResourceExhausted(
                "QUEUE_FULL",
                f"{len(self._queue)} requests are waiting, as many as scheduler.max_queue allows",
                retry_after_seconds=0.1,
                limit=self._limits.max_queue,
            )

    async def submit(
        self,
        engine: Engine,
        session: Session | None,
        inputs: NDArray[Any],
        deadline: float | None,
        learn: bool,
        request_id: str = "",
        terms: Terms | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Answer:
        """Queue a request and wait for its answer.

        Raises:
            ResourceExhausted, Unavailable: see `admit`.
            DeadlineExceeded: the deadline passed before the engine began.
        """
        self.admit(deadline)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        now = self._clock.monotonic()
        ticket = Ticket(
            engine, session, inputs, now, deadline, learn, request_id, future, terms or Terms(), priority, MARK.get()
        )
        self._queue.insert(place(self._queue, ticket), ticket)
        self.idle.clear()
        self._wake.set()
        return await future

    def replaced(self, old: Engine, new: Engine) -> None:
        """Let `new` answer what waits for `old`; requests whose inputs it does not take are refused.

        Sessions must have been moved already: `old` still answers those that were not.
        """
        takes = old.manifest.inputs == new.manifest.inputs
        for ticket in self._queue:
            if ticket.engine is not old or (ticket.session is not None and ticket.session.cohort.engine is old):
                continue
            if takes:
                ticket.engine = new
            elif not ticket.answer.done():
                ticket.answer.set_exception(
                    Unavailable(
                        "MODEL_REPLACED",
                        f"model {new.manifest.name!r} was replaced by one with other inputs; read its metadata again",
                        retry_after_seconds=0.0,
                    )
                )
        self._queue = deque(ticket for ticket in self._queue if not ticket.answer.done())

    async def run(self) -> None:
        """Serve until `close` is called and the queue is empty."""
        while not (self._closing and not self._queue):
            self._serving = await self._next()
            if self._serving:
                await self._serve(self._serving)

    def close(self) -> None:
        """Refuse new requests; `run` returns when those queued are answered."""
        self._closing = True
        self._wake.set()

    def release(self) -> None:
        """Give the worker thread up, once `run` has ended; whoever was cut off in the middle is told so."""
        for ticket in (*self._serving, *self._queue):
            if not ticket.answer.done():
                ticket.answer.set_exception(Unavailable("DRAINING", "the daemon stopped before it could answer"))
        self._queue.clear()
        self._pool.shutdown(wait=False)

    async def _next(self) -> list[Ticket]:
        self._drop_expired()
        now = self._clock.monotonic()
        view = [Waiting(t.lane, len(t.inputs), t.arrived) for t in self._queue]
        # Nobody comes any more while draining, so there is no company to wait for.
        max_delay = 0.0 if self._closing else self._limits.max_delay
        plan = next_batch(view, now, max_rows=self._limits.max_batch, max_delay=max_delay)
        if not plan.run:
            await self._sleep(None if plan.look_again_at is None else plan.look_again_at - now)
            return []
        chosen = set(plan.run)
        batch = [self._queue[position] for position in plan.run]
        self._queue = deque(t for position, t in enumerate(self._queue) if position not in chosen)
        return batch

    async def _sleep(self, seconds: float | None) -> None:
        if not self._queue:
            self.idle.set()
        self._wake.clear()
        if self._closing:
            return
        if seconds is None:
            await self._wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    def _drop_expired(self) -> None:
        now = self._clock.monotonic()
        kept: deque[Ticket] = deque()
        for ticket in self._queue:
            if ticket.answer.cancelled():
                continue
            if ticket.deadline is not None and now >= ticket.deadline:
                ticket.answer.set_exception(
                    DeadlineExceeded("DEADLINE_EXCEEDED", "the deadline passed while the request was queued")
                )
                continue
            kept.append(ticket)
        self._queue = kept

    async def _serve(self, batch: list[Ticket]) -> None:
        try:
            answers = await self._answer(batch)
        except Exception as error:
            # It costs this batch; the next one is served.
            for ticket in batch:
                if not ticket.answer.done():
                    ticket.answer.set_exception(error)
            return
        for ticket, answer in zip(batch, answers, strict=True):
            if not ticket.answer.done():
                ticket.answer.set_result(answer)

    async def _answer(self, batch: list[Ticket]) -> list[Answer]:
        first, began = batch[0], self._clock.monotonic()
        inputs = first.inputs if len(batch) == 1 else np.concatenate([t.inputs for t in batch])
        folded = first.folded
        versions = [0 if t.session is None else t.session.version for t in batch]
        started = self._clock.monotonic()
        floats = None if first.session is None else first.session.floats
        logits, features = await asyncio.get_running_loop().run_in_executor(
            self._pool, compute_answers, first.engine, inputs, folded, floats
        )
        ended, start = self._clock.monotonic(), 0
        answers: list[Answer] = []
        for ticket, version in zip(batch, versions, strict=True):
            part, seen = (rows[start : start + len(ticket.inputs)] for rows in (logits, features))
            start += len(ticket.inputs)
            if ticket.session is not None and ticket.session.cohort.engine is ticket.engine:
                part = ticket.session.corrected(part, seen)
            scores = score(part)
            answers.append(
                Answer(
                    ticket.engine, part, scores, version, began - ticket.arrived, ended - started, len(inputs),
                    gathered=started - began, scored=self._clock.monotonic() - ended, leads=not answers,
                )
            )  # fmt: skip
            self._answered(ticket, answers[-1])
        if self._before_reply is not None:
            await self._before_reply(batch)
        return answers
