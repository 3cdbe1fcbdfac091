"""Running one adaptation step on an engine, in slices short enough that predictions are not kept waiting.

Rows whose normalisation does not depend on the batch (`alpha` 0) are independent of each other, so such
requests are cut into slices; between slices the step waits while predictions are queued.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

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
R = TypeVar("R", Outputs, Gradients)


# Rows normalised with their batch are kept together by session; this many times the slice of independent rows.
WHOLE_SESSIONS = 4


@dataclass(frozen=True, slots=True)
class Slicing:
    """How requests are cut: `pause` is called before each engine call.

    Rows that do not depend on the batch go `rows` at a time. Rows that do go by whole sessions, as many as fit into
    four times that, and one session at least: what a call keeps in memory does not grow with the step.
    """

    rows: int
    pause: Pause


def waiting(idle: threading.Event, patience: float) -> Pause:
    """A pause that lets predictions go first: until none waits, for `patience` seconds at most."""

    def pause() -> None:
        idle.wait(patience)

    return pause


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
            order, outputs = _each(rows, slicing, lambda part: engine.forward(Forward(rows.take(part))))
            features = np.concatenate([part.features for part in outputs])
            return Outputs(
                np.concatenate([part.logits for part in outputs])[order],
                np.concatenate([part.batch_stats for part in outputs])[order],
                features[order] if len(features) else features,
            )
        case Gradient(rows):
            order, gradients = _each(rows, slicing, lambda part: engine.vjp(request.take(part)))
            return Gradients(
                np.concatenate([part.grad_theta for part in gradients])[order],
                np.concatenate([part.logits for part in gradients])[order],
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


def _each(rows: Rows, slicing: Slicing, call: Callable[[Index], R]) -> tuple[Index, list[R]]:
    """The replies for each part of the rows, and the order that puts their rows back where they belong."""
    parts, replies = [], []
    cut = _by_session(rows.group, slicing) if rows.alpha.any() else _slices(len(rows), slicing.rows, slicing.pause)
    for part in cut:
        parts.append(part)
        replies.append(call(part))
    return np.argsort(np.concatenate(parts)), replies


def _by_session(group: Index, slicing: Slicing) -> Iterator[Index]:
    """Positions of whole sessions, as many together as the slicing allows."""
    order = np.argsort(group, kind="stable")
    ends = [*np.flatnonzero(np.diff(group[order])) + 1, len(group)]
    start = 0
    for end, following in zip(ends, [*ends[1:], None], strict=True):
        if following is None or following - start > WHOLE_SESSIONS * slicing.rows:
            slicing.pause()
            yield order[start:end]
            start = end


def _slices(rows: int, size: int, pause: Pause) -> Iterator[Index]:
    for start in range(0, rows, max(size, 1)):
        pause()
        yield np.arange(start, min(start + size, rows))
