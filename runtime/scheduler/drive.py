"""Running one adaptation step on an engine, in slices short enough that predictions are not kept waiting.

Rows whose normalisation does not depend on the batch (`alpha` 0) are independent of each other, so such
requests are cut into slices; between slices the step waits while predictions are queued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from acclimate.adapters.layout import Float
from acclimate.adapters.requests import (
    Forward,
    Frozen,
    Gradient,
    Gradients,
    Index,
    Outputs,
    Reply,
    Request,
    Rows,
    Serve,
)
from acclimate.adapters.step import Asking, StepResult
from acclimate.runtime.engines.base import Engine

Pause = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Slicing:
    """At most `rows` per engine call where rows are independent, and `pause` called before each call."""

    rows: int
    pause: Pause


def run_step(step: Asking, engine: Engine, slicing: Slicing) -> StepResult:
    """Feed a step until it returns."""
    try:
        request = next(step)
        while True:
            request = step.send(answer(request, engine, slicing))
    except StopIteration as finished:
        result: StepResult = finished.value
        return result


def answer(request: Request, engine: Engine, slicing: Slicing) -> Reply:
    """The engine's reply to one request."""
    match request:
        case Frozen(inputs):
            logits = [engine.frozen(inputs[part]) for part in _slices(len(inputs), slicing.rows, slicing.pause)]
            return Outputs(np.concatenate(logits), np.zeros((len(inputs), 0), np.float32))
        case Serve():
            return Outputs(_served(request, engine, slicing), np.zeros((len(request.inputs), 0), np.float32))
        case Forward(rows):
            outputs = [engine.forward(Forward(rows.take(part))) for part in _independent(rows, slicing)]
            return Outputs(
                np.concatenate([part.logits for part in outputs]),
                np.concatenate([part.batch_stats for part in outputs]),
            )
        case Gradient(rows, cotangent):
            gradients = [engine.vjp(Gradient(rows.take(part), cotangent[part])) for part in _independent(rows, slicing)]
            return Gradients(
                np.concatenate([part.grad_theta for part in gradients]),
                np.concatenate([part.logits for part in gradients]),
            )


def _served(request: Serve, engine: Engine, slicing: Slicing) -> Float:
    """Logits `[B, C]` of the quantized model, session by session: each has scales and biases of its own."""
    logits = np.zeros((len(request.inputs), len(engine.manifest.classes)), np.float32)
    for session in np.unique(request.group):
        folded = engine.fold(request.theta[session], request.stats[session])
        rows = np.flatnonzero(request.group == session)
        for part in _slices(len(rows), slicing.rows, slicing.pause):
            logits[rows[part]] = engine.predict(request.inputs[rows[part]], folded)
    return logits


def _independent(rows: Rows, slicing: Slicing) -> Iterator[Index]:
    return _slices(len(rows), len(rows) if rows.alpha.any() else slicing.rows, slicing.pause)


def _slices(rows: int, size: int, pause: Pause) -> Iterator[Index]:
    for start in range(0, rows, max(size, 1)):
        pause()
        yield np.arange(start, min(start + size, rows))
