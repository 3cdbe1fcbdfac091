"""The learner: many sessions' jobs in one batch, each step guarded, each job with a budget and an end of its own.

`learn` is a generator. It computes between two records and nowhere else: whoever drives it may stop at any of them,
and no session has changed until its `Learnt` is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from acclimate.adapters.learning.lesson import Lesson
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.language.classroom import Classroom
from acclimate.runtime.language.foundation import Foundation
from acclimate.runtime.language.jobs import Job, LearningLimits, Learnt, Progress, Stopped


def learn(
    engine: LanguageEngine,
    lesson: Lesson,
    jobs: Sequence[Job],
    base: Foundation,
    now: Callable[[], float],
    limits: LearningLimits | None = None,
    cancelled: Callable[[], Collection[str]] = frozenset,
) -> Iterator[Progress | Learnt]:
    """Carry out one lesson for several sessions.

    Args:
        engine: computes scores and gradients for all of them at once.
        lesson: of `acclimate.adapters.learning.recipes`.
        jobs: one for each session.
        base: the engine's `foundation`.
        now: seconds, of a clock that never goes back.
        limits: what a proposal must pass.
        cancelled: sessions whose jobs are to end; asked between steps. A cancelled job keeps nothing.

    Yields:
        A `Progress` for each job and step, and one for each check; a `Learnt` for each job, once, its last record.
    """
    room = Classroom(engine, lesson, jobs, base, now, limits or LearningLimits())
    room.begin()
    for epoch in range(lesson.descent.epochs):
        if not len(room.active):
            break
        room.compose(epoch)
        yield from _epoch(room, cancelled)
        yield from room.check(room.active)
        yield from room.ended()
    room.stop(room.active, Stopped.FINISHED)
    yield from room.ended()


def _epoch(room: Classroom, cancelled: Callable[[], Collection[str]]) -> Iterator[Progress | Learnt]:
    """The steps of one epoch; jobs that end within it are judged where they end."""
    for step in range(room.steps):
        room.cancel(cancelled())
        spent = room.spent(step)
        if spent:
            yield from room.check(spent)
        yield from room.ended()
        if not len(room.active):
            return
        yield from room.step(step)
