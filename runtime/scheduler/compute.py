"""Computing answers; computing a step on copies of its sessions' rows, and folding what will serve."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.requests import Forward, Rows
from acclimate.adapters.step import Asked, Batch, StepResult, adaptation_step
from acclimate.runtime.engines.base import Engine, Folded
from acclimate.runtime.generation.model import answers_arrays
from acclimate.runtime.scheduler.drive import Slicing, run_step
from acclimate.runtime.sessions.cohort import Cohort

CHANGED = (Outcome.APPLIED, Outcome.SKIPPED_NOT_SELECTED)
NICENESS = 10


@dataclass(frozen=True, slots=True)
class Computed:
    """A step's result, what will serve each of its sessions that changed, and the milliseconds it took."""

    result: StepResult
    folded: list[Folded | None]
    ms: float


def compute_step(
    cohort: Cohort, state: State, batch: Batch, slicing: Slicing, caught_up: NDArray[np.bool_] | None = None
) -> Computed:
    """Run a step and fold what will serve: of the sessions that changed, and of those that have `caught_up [S]`.

    If one session's numbers overflow, each session steps by itself.

    A product with a NaN is a NaN even where the weight is zero, so a batch shared with a diverged session
    proves nothing about the others.
    """
    started = time.perf_counter()
    engine, recipe = answers_arrays(cohort.engine), cohort.recipe
    result = run_step(adaptation_step(recipe, engine.source, state, batch), engine, slicing)
    if len(result.outcome) > 1 and (result.outcome == Outcome.ROLLED_BACK_NONFINITE).any():
        result = _merge([
            run_step(adaptation_step(recipe, engine.source, *_only(state, batch, i)), engine, slicing)
            for i in range(len(result.outcome))
        ])  # fmt: skip
    changed = np.isin(result.outcome, CHANGED) | (result.back_to > 0)
    if caught_up is not None:
        changed |= caught_up & (result.reason == "")
    served = zip(changed, result.state[THETA], result.state[STATS], strict=True)
    folded = [engine.fold(theta, stats) if anew else None for anew, theta, stats in served]
    return Computed(result, folded, (time.perf_counter() - started) * 1e3)


def _only(state: State, batch: Batch, session: int) -> tuple[State, Batch]:
    return one_session(state, session), batch.of(np.array([session]))[0]


def one_session(state: State, session: int) -> State:
    """Fields `[1, ...]` of one session of a state `[S, ...]`."""
    return {name: value[session : session + 1] for name, value in state.items()}


def _merge(results: list[StepResult]) -> StepResult:
    def join(pick: Callable[[StepResult], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([pick(result) for result in results])

    return StepResult(
        state={name: np.concatenate([r.state[name] for r in results]) for name in results[0].state},
        outcome=join(lambda r: r.outcome),
        back_to=join(lambda r: r.back_to),
        levels=join(lambda r: r.levels),
        reason=join(lambda r: r.reason),
        drift=join(lambda r: r.drift),
        logits=join(lambda r: r.logits),
        loss=join(lambda r: r.loss),
        selected=join(lambda r: r.selected),
        distance=join(lambda r: r.distance),
        asked=Asked(
            sum(r.asked.forward for r in results),
            sum(r.asked.backward for r in results),
            sum(r.asked.quantized for r in results),
        ),
    )


def lower_priority() -> None:
    """Let predictions go first where the two share a core; Linux schedules threads one by one."""
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def compute_answers(
    engine: Engine, inputs: NDArray[Any], folded: Folded | None, floats: tuple[Float, Float] | None
) -> tuple[Float, Float]:
    """Logits `[B, C]`, and features `[B, D]` where `floats`, theta and statistics of one session, ask for these."""
    if floats is not None:
        theta, stats = (np.repeat(row[np.newaxis], len(inputs), axis=0) for row in floats)
        alone = Rows(inputs, theta, stats, np.arange(len(inputs)), np.zeros(len(inputs), np.float32))
        outputs = engine.forward(Forward(alone))
        return outputs.logits, outputs.features
    logits = engine.frozen(inputs) if folded is None else engine.predict(inputs, folded)
    return logits, np.zeros((0, 0), np.float32)
