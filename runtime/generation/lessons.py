"""Lessons of one model: a queue, a thread that computes between steps of the learner, and the commit.

Lessons that follow the same recipe learn in one batch. Everything but the computation happens on the event loop's
thread: before each step texts that are written go first, after it the sessions pay and their clients hear of it. A
lesson changes its session once, at its end, or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from acclimate.adapters.fields import THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.recipes import language_lesson
from acclimate.adapters.learning.units import Example
from acclimate.runtime.errors import ResourceExhausted, Unavailable
from acclimate.runtime.generation.desk import Desk
from acclimate.runtime.generation.meter import Meter
from acclimate.runtime.generation.purse import Purse
from acclimate.runtime.generation.remembering import earlier
from acclimate.runtime.generation.types import LearnOutcome, LearnProgress
from acclimate.runtime.language.jobs import Job, LearningBudget, Learnt, Progress
from acclimate.runtime.language.learning import learn
from acclimate.runtime.scheduler.compute import lower_priority
from acclimate.runtime.sessions.session import Session

log = structlog.stdlib.get_logger("acclimate.generation")
T = TypeVar("T")

RETRY_SECONDS = 2.0
# What takes less is no step, and nobody waits before the next.
STEP_SECONDS = 1e-3
Update = LearnProgress | LearnOutcome | BaseException
Commit = Callable[["Pupil", Learnt], Awaitable[LearnOutcome]]
"""Judges what was learnt by the state that the session is in, and commits it or not."""


@dataclass(eq=False)
class Pupil:
    """A session with what it is to learn, while it waits and while it learns.

    `epoch` is the session's when the lesson began: where it is another by the end, nothing is committed. `cost_ms` is
    what was paid; `left` says that nobody waits for the outcome any more. With `discard` the session stays as it is,
    and what may be used is `theta [P]`. `replayed` counts the earlier examples that it learns from again.
    """

    session: Session
    recipe: str
    parameters: dict[str, float]
    examples: tuple[Example, ...]
    max_tokens: int | None
    max_ms: float | None
    asked_at: float
    discard: bool = False
    replayed: int = 0
    theta: Float | None = None
    updates: asyncio.Queue[Update] = field(default_factory=asyncio.Queue)
    epoch: int = 0
    cost_ms: float = 0.0
    left: bool = False
    over: bool = False

    @property
    def given_up(self) -> bool:
        """Whether nothing that it learns could be committed any more."""
        return self.left or not self.session.open or self.session.epoch != self.epoch


class Lessons:
    """The lessons of one model.

    Args:
        desk: the model's.
        purse: who pays.
        commit: what becomes of what was learnt.
        now: seconds, on the service's clock.
    """

    def __init__(self, desk: Desk, purse: Purse, commit: Commit, now: Callable[[], float]) -> None:
        self._desk, self._purse, self._commit, self._now = desk, purse, commit, now
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="study", initializer=lower_priority)
        self._waiting: list[Pupil] = []
        self._learning: list[Pupil] = []
        self._run: asyncio.Task[None] | None = None
        self._closed = False

    async def attend(self, pupil: Pupil) -> AsyncGenerator[LearnProgress | LearnOutcome, None]:
        """Progress of a lesson, then its outcome; whoever stops reading ends it, and nothing is committed then.

        Raises:
            ResourceExhausted: too many lessons wait, or nothing can be paid for. Unavailable: the daemon drains.
        """
        limit = self._desk.limits.learn_queue
        if self._closed:
            raise _draining()
        if len(self._waiting) >= limit:
            raise ResourceExhausted(
                "QUEUE_FULL",
                f"{len(self._waiting)} lessons wait, as many as generation.learn_queue allows",
                retry_after_seconds=RETRY_SECONDS,
                limit=limit,
            )
        self._purse.refuse_empty(pupil.session)
        self._waiting.append(pupil)
        self._count()
        if self._run is None or self._run.done():
            self._run = asyncio.create_task(self._teach(), name="lessons")
        try:
            while True:
                update = await pupil.updates.get()
                if isinstance(update, BaseException):
                    raise update
                yield update
                if isinstance(update, LearnOutcome):
                    return
        finally:
            pupil.left = True
            if pupil in self._waiting:
                self._waiting.remove(pupil)
                self._count()

    def close(self) -> None:
        """Begin no further lesson; those that learn go on."""
        self._closed = True
        for pupil in self._waiting:
            pupil.updates.put_nowait(_draining())
        self._waiting.clear()
        self._count()

    async def release(self, grace_seconds: float) -> None:
        """Let those that learn finish for a while, end the others after their step, and give the thread up."""
        self.close()
        if self._run is not None and not self._run.done():
            await asyncio.wait((self._run,), timeout=grace_seconds)
            for pupil in self._learning:
                pupil.left = True
                pupil.updates.put_nowait(_draining())
            await asyncio.wait((self._run,))
        await asyncio.to_thread(self._pool.shutdown)

    async def _teach(self) -> None:
        while self._waiting:
            self._learning = self._class()
            self._count()
            try:
                await self._learn(self._learning)
            except Exception as error:
                # It costs these lessons; their sessions are as they were.
                log.exception("lessons failed", model=self._desk.model.manifest.name, lessons=len(self._learning))
                for pupil in self._learning:
                    pupil.updates.put_nowait(error)
            finally:
                for pupil in self._learning:
                    pupil.session.stepping = False
                self._learning = []
                self._count()

    def _class(self) -> list[Pupil]:
        """Those that can learn together with the first: the same recipe, and no session twice."""
        first, seen = self._waiting[0], set[int]()
        chosen: list[Pupil] = []
        for pupil in self._waiting:
            alike = (pupil.recipe, pupil.parameters) == (first.recipe, first.parameters)
            if alike and id(pupil.session) not in seen and len(chosen) < self._desk.limits.learn_together:
                chosen.append(pupil)
                seen.add(id(pupil.session))
        self._waiting = [pupil for pupil in self._waiting if pupil not in chosen]
        return chosen

    async def _learn(self, pupils: list[Pupil]) -> None:
        meter, names = Meter(len(pupils)), {str(place): pupil for place, pupil in enumerate(pupils)}
        jobs = [self._job(name, pupil) for name, pupil in names.items()]
        for pupil in pupils:
            pupil.session.stepping = True

        def given_up() -> set[str]:
            return {name for name, pupil in names.items() if not pupil.over and pupil.given_up}

        model = self._desk.model
        base = await self._compute(model.foundation)
        lesson = language_lesson(pupils[0].recipe, pupils[0].parameters)
        records = learn(model.engine, lesson, jobs, base, meter.now, model.limits, given_up)
        while True:
            record, spent = await self._compute(lambda: _next(records, meter))
            under_way = [pupil for pupil in pupils if not pupil.over]
            for pupil in under_way:
                pupil.cost_ms += spent * 1e3
                self._purse.pay(pupil.session, spent * 1e3)
            if record is None:
                return
            await self._tell(names[record.session], record)
            meter.sharers = sum(not pupil.over for pupil in pupils)
            if spent > STEP_SECONDS and not self._desk.writer.idle.is_set():
                await self._compute(self._let_texts_go_first)

    def _let_texts_go_first(self) -> None:
        self._desk.writer.idle.wait(self._desk.limits.learn_patience_ms / 1e3)

    async def _tell(self, pupil: Pupil, record: Progress | Learnt) -> None:
        if isinstance(record, Learnt):
            pupil.over, pupil.session.stepping = True, False
            pupil.updates.put_nowait(await self._commit(pupil, record))
            return
        progress = LearnProgress(
            step=record.step,
            steps=record.steps,
            tokens=record.tokens,
            loss=record.loss,
            held_out_perplexity=record.held_out_perplexity or 0.0,
            elapsed_ms=(self._now() - pupil.asked_at) * 1e3,
            tokens_left=record.tokens_left,
            ms_left=record.milliseconds_left,
        )
        pupil.updates.put_nowait(progress)

    def _job(self, name: str, pupil: Pupil) -> Job:
        """The lesson as the learner takes it, from what the session has learnt so far."""
        session = pupil.session
        pupil.epoch = session.epoch
        held = session.cohort.bank.view(THETA, session.row) if session.open else self._desk.engine.source.theta
        most = float("inf") if pupil.max_ms is None else pupil.max_ms
        allowed = min(self._purse.allowance_ms(session) if session.open else 0.0, most)
        bound = LearningBudget(pupil.max_tokens, allowed if allowed < float("inf") else None)
        replay = earlier(session, pupil.recipe, pupil.parameters)
        pupil.replayed = len(replay)
        return Job(name, held, pupil.examples, replay=replay, budget=bound)

    def _count(self) -> None:
        self._desk.lessons_waiting, self._desk.learning = len(self._waiting), len(self._learning)

    async def _compute(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _next(records: Iterator[Progress | Learnt], meter: Meter) -> tuple[Progress | Learnt | None, float]:
    """The next record, and the seconds that each lesson is charged for it."""
    before = meter.now()
    meter.go()
    try:
        record = next(records, None)
    finally:
        meter.rest()
    return record, meter.now() - before


def _draining() -> Unavailable:
    return Unavailable("DRAINING", "the daemon is draining; nothing of the lesson was committed")
