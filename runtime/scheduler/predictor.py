"""Answering requests: a bounded queue, batches across sessions, one thread that computes.

Everything but the engine call runs on the event loop's thread, so sessions need no locks. The next batch is on its way
to the thread before the last one's answers are accounted for, so that the engine does not wait for the loop. A request
that is alone, and whose answer takes no longer than handing it over would, is answered on the spot.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from acclimate.runtime.clock import Clock
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from acclimate.runtime.inference import DEFAULT_PRIORITY
from acclimate.runtime.scheduler.admission import Admission, Refused
from acclimate.runtime.scheduler.around import MARK
from acclimate.runtime.scheduler.batches import Batch, Computed, answers_of, compute, put_together, reply, tell
from acclimate.runtime.scheduler.fair import FairQueue
from acclimate.runtime.scheduler.limits import PredictorLimits
from acclimate.runtime.scheduler.shortness import Shortness, Solo
from acclimate.runtime.scheduler.tickets import Answer, Ticket
from acclimate.runtime.scheduler.worker import Worker
from acclimate.runtime.security.caller import current
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.sessions.terms import Terms

Answered = Callable[[Sequence[tuple[Ticket, Answer]]], None]


class Predictor:
    """The prediction queue and its worker.

    Args:
        limits: bounds of batches and queue.
        clock: the time.
        admission: told what the engine takes and whom the queue refuses; says when a request has waited too long.
        answered: called with every batch, before the clients are told, to account for it.
        before_reply: awaited after each batch with its tickets, before the clients are told; synchronous mode
            learns here, so that a client that waits for its answer sees what it did to the session.
        weight: a tenant's share of the engine among those that wait for it.
    """

    def __init__(
        self,
        limits: PredictorLimits,
        clock: Clock,
        admission: Admission,
        answered: Answered,
        before_reply: Callable[[list[Ticket]], Awaitable[None]] | None = None,
        weight: Callable[[str], float] = lambda _: 1.0,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self.admission = admission
        self._answered = answered
        self._before_reply = before_reply
        self._queue: FairQueue[Ticket] = FairQueue(weight)
        self._serving: list[Ticket] = []
        self._worker = Worker("predict")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looking = self._closing = self._answering = False
        self._short, self._solo = Shortness(), Solo()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self._learning: set[asyncio.Task[None]] = set()
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
            self.admission.refused(Refused.QUEUE)
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
            ResourceExhausted, Unavailable: see `admit`; or it was given up because too much came.
            DeadlineExceeded: the deadline passed before the engine began.
        """
        self.admit(deadline)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._solo.came(company=bool(self._serving or self._queue or self._answering) or self.admission.under_way > 1)
        now, tenant = self._clock.monotonic(), current().tenant if session is None else session.tenant
        terms, mark = terms or Terms(), MARK.get()
        ticket = Ticket(
            engine, session, inputs, now, deadline, learn, request_id, future, terms, priority, tenant, mark
        )
        self.idle.clear()
        waits = self._limits.max_delay or self._before_reply is not None
        if waits or self._serving or self._looking or self._answering:
            self._queue.add(ticket)
            self._look()
        elif self._loop is not None and not self._queue and self._solo and self._short.expected(engine, ticket.rows):
            self._answer_here(ticket, self._loop)
        else:
            # Nobody is there to wait for: what else comes in this turn of the loop is the next batch. Not in
            # synchronous mode, where what one client does at a time must not depend on others being there.
            self._queue.add(ticket)
            self._begin()
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
        self._queue.drop(lambda ticket: ticket.answer.done())

    async def run(self) -> None:
        """Serve until `close` is called and the queue is empty."""
        self._loop = asyncio.get_running_loop()
        try:
            self._look()
            await self._ended.wait()
        finally:
            self._loop = None
            for task in self._learning:
                task.cancel()

    def close(self) -> None:
        """Refuse new requests; `run` returns when those queued are answered."""
        self._closing = True
        self._look()

    def release(self) -> None:
        """Give the worker thread up, once `run` has ended; whoever was cut off in the middle is told so."""
        for ticket in (*self._serving, *self._queue):
            if not ticket.answer.done():
                ticket.answer.set_exception(Unavailable("DRAINING", "the daemon stopped before it could answer"))
        self._queue.clear()
        self._worker.stop()

    def _look(self) -> None:
        """Look for a batch at the end of this turn of the loop, when whoever is ready now has queued as well."""
        if self._loop is not None and not self._looking and not self._serving:
            self._looking = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Hand the next batch to the thread, if it is free and there is one."""
        self._looking = False
        if self._loop is None or self._serving:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock.monotonic()
        self._give_up(now)
        # Nobody comes any more while draining, so there is no company to wait for.
        max_delay = 0.0 if self._closing else self._limits.max_delay
        batch = self._queue.take(now, max_rows=self._limits.max_batch, max_delay=max_delay)
        if batch.items:
            self._serving = batch.items
            self._dispatch(batch.items, now)
        elif batch.look_again_at is not None:
            self._timer = self._loop.call_later(batch.look_again_at - now, self._look)
        else:
            self.idle.set()
            if self._closing:
                self._ended.set()

    def _give_up(self, now: float) -> None:
        """Take out whose client left, whose deadline passed, and what waited too long while too much comes."""
        stale = self.admission.stale_seconds

        def dead(ticket: Ticket) -> bool:
            if ticket.answer.done():
                return True
            if ticket.deadline is not None and now >= ticket.deadline:
                ticket.answer.set_exception(
                    DeadlineExceeded("DEADLINE_EXCEEDED", "the deadline passed while the request was queued")
                )
            elif stale is not None and now - ticket.arrived > stale:
                ticket.answer.set_exception(self.admission.given_up())
            return ticket.answer.done()

        self._queue.drop(dead)

    def _dispatch(self, tickets: list[Ticket], began: float) -> None:
        batch = put_together(tickets, began)
        self._worker.submit(partial(compute, batch, self._clock), partial(self._done, batch))

    def _answer_here(self, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> None:
        """Answer a request that is alone on the loop's thread; who else comes in this turn is a batch, at its end."""
        self._answering = True
        loop.call_soon(self._turned)
        batch = put_together([ticket], ticket.arrived)
        try:
            computed = compute(batch, self._clock)
        except Exception as failed:
            tell(batch, failed)
        else:
            reply(batch, self._accounted(batch, computed, None))
        self.idle.set()

    def _turned(self) -> None:
        self._answering = False

    def _done(self, batch: Batch, computed: Computed | None, error: BaseException | None) -> None:
        if self._loop is None:
            return
        if self._before_reply is not None:
            task = self._loop.create_task(self._learnt(batch, computed, error, self._before_reply))
            self._learning.add(task)
            task.add_done_callback(self._learning.discard)
            return
        self._serving = []
        self._begin()
        reply(batch, self._accounted(batch, computed, error))

    async def _learnt(
        self,
        batch: Batch,
        computed: Computed | None,
        error: BaseException | None,
        before_reply: Callable[[list[Ticket]], Awaitable[None]],
    ) -> None:
        """Synchronous mode: nothing else is computed until the batch was learnt from."""
        answers = self._accounted(batch, computed, error)
        if answers:
            try:
                await before_reply(batch.tickets)
            except Exception as failed:
                tell(batch, failed)
        self._serving = []
        reply(batch, answers)
        self._begin()

    def _accounted(self, batch: Batch, computed: Computed | None, error: BaseException | None) -> list[Answer]:
        """The answers of a batch, accounted for; none if it failed, which its clients are told."""
        if computed is None:
            tell(batch, error)
            return []
        try:
            answers = answers_of(batch, computed, self._clock.monotonic())
            took = computed.ended - computed.started
            self.admission.computed(took, len(answers))
            self._short.note(batch.tickets[0].engine, len(computed.logits), took)
            self._answered(list(zip(batch.tickets, answers, strict=True)))
        except Exception as failed:
            tell(batch, failed)
            return []
        return answers
