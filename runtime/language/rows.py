"""From jobs to rows of theta: who learns from which examples, who is judged by which, and the units of an epoch.

A job has one row, judged by what is held out; or, in folds, a row that learns from everything and, for each fold, a
copy that learns from the others and is judged on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.language import TokenScores
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.lesson import Lesson
from acclimate.adapters.learning.units import Example, Stack, Unit, stack
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.language.foundation import Foundation, score_in_parts
from acclimate.runtime.language.jobs import Job


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A row of theta: its job's number, what it learns from, and the units that judge it."""

    job: int
    examples: tuple[Example, ...]
    judges: tuple[Unit, ...]
    number: int = 0
    """Among the rows of its job; the first is the job's result, the others only judge."""

    @property
    def answers(self) -> bool:
        """Whether the job's result is this row."""
        return self.number == 0


@dataclass(frozen=True, slots=True, eq=False)
class Epoch:
    """The units of an epoch of all rows.

    Attributes:
        stacked: N units.
        base: `[N, T]` log-probabilities under the source where a token anchors, else 0.
        plan: `[R, steps, batch]` unit numbers; -1: none.
        steps: `[R]` steps of each row.
    """

    stacked: Stack
    base: Float
    plan: NDArray[np.int64]
    steps: NDArray[np.int64]


def rows_of(lesson: Lesson, jobs: Sequence[Job], room: int) -> list[Row]:
    """The rows of all jobs, in order."""
    return [row for number, job in enumerate(jobs) for row in _rows(lesson, number, job, room)]


def _rows(lesson: Lesson, number: int, job: Job, room: int) -> list[Row]:
    holding, examples = lesson.holding, job.examples
    if job.held_out:
        return [Row(number, examples, tuple(lesson.judge(examples, job.held_out, room)))]
    order = np.random.default_rng([job.seed, 1]).permutation(len(examples))
    if holding.folds > 1 and len(examples) >= 2 * holding.folds:
        rows = [Row(number, examples, ())]
        for fold in range(holding.folds):
            held = _at(examples, order[fold :: holding.folds])
            shown = _at(examples, np.setdiff1d(order, order[fold :: holding.folds]))
            rows.append(Row(number, shown, tuple(lesson.judge(shown, held, room)), fold + 1))
        return rows
    count = min(round(holding.share * len(examples)), len(examples) - 1)
    count = max(count, 1) if holding.share > 0 and len(examples) > 1 else 0
    held, shown = _at(examples, order[:count]), _at(examples, np.sort(order[count:]))
    return [Row(number, shown, tuple(lesson.judge(shown, held, room)) if held else ())]


def _at(examples: Sequence[Example], index: NDArray[np.int64]) -> tuple[Example, ...]:
    return tuple(examples[at] for at in index)


def epoch_of(
    engine: LanguageEngine,
    base: Foundation,
    lesson: Lesson,
    units: Sequence[Sequence[Unit]],
    extra: Sequence[Sequence[Unit]],
    random: Sequence[np.random.Generator],
    at_once: int,
) -> Epoch:
    """Shuffle each row's own units and those that replay into its steps.

    Args:
        engine: for the source's log-probabilities of what anchors.
        base: the canaries, which anchor where the lesson has a divergence, and what the source says of them.
        lesson: how many units a step.
        units: each row's own; a row without any takes no step.
        extra: each row's replayed ones.
        random: each row's own, so that a job goes as it would alone.
        at_once: most tokens of one call.
    """
    batch, flat, orders, canaries = lesson.descent.batch, list[Unit](), [], list[int]()
    for own, more, drawn in zip(units, extra, random, strict=True):
        anchors = base.units if lesson.anchors.kl > 0 and own else ()
        mine = [*own, *more, *(_anchor_only(unit) for unit in anchors)]
        orders.append(len(flat) + drawn.permutation(len(mine)))
        canaries += range(len(flat) + len(mine) - len(anchors), len(flat) + len(mine))
        flat += mine
    steps = np.array([-(-len(order) // batch) for order in orders], np.int64)
    plan = np.full((len(orders), int(steps.max(initial=0)) * batch), -1)
    for row, order in enumerate(orders):
        plan[row, : len(order)] = order
    stacked = stack(flat)
    known = _base_logprob(engine, base, stacked, canaries, at_once)
    return Epoch(stacked, known, plan.reshape(len(orders), -1, batch), steps)


def replayed(lesson: Lesson, job: Job, own: int, random: np.random.Generator, room: int) -> list[Unit]:
    """As many units of earlier examples as the lesson asks for; where it has a divergence, they anchor as well."""
    count = round(lesson.anchors.replay * own)
    if count == 0 or not job.replay:
        return []
    units = lesson.compose(job.replay, random, room)
    chosen = [units[at] for at in random.permutation(len(units))[:count]]
    if lesson.anchors.kl == 0:
        return chosen
    return [replace(unit, anchor=(unit.weight > 0).astype(np.float32)) for unit in chosen]


def _anchor_only(unit: Unit) -> Unit:
    """The unit with nothing to learn in it."""
    return replace(unit, weight=np.zeros_like(unit.weight))


def _base_logprob(
    engine: LanguageEngine, base: Foundation, stacked: Stack, canaries: Sequence[int], at_once: int
) -> Float:
    """Log-probabilities under the source of units that anchor; canaries' are known, the others' are computed."""
    found = np.zeros(stacked.ids.shape, np.float32)
    for place, unit in enumerate(canaries):
        known = base.logprob[place % len(base.units)]
        found[unit, : len(known)] = known
    index = np.setdiff1d(np.flatnonzero(stacked.targets.anchor.any(axis=1)), canaries)
    if len(index):
        rows, _ = stacked.take(index, np.zeros(len(index), np.intp))
        scores: TokenScores = score_in_parts(engine, rows, engine.source.theta[np.newaxis], at_once)
        found[index, : rows.ids.shape[1]] = scores.logprob
    return found
