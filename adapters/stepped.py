"""What a step is given, what it asked for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.requests import Forward, Frozen, Gradient, Index, Request, Serve


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of several sessions.

    Attributes:
        inputs: `[B, ...]`.
        group: `[B]` the session of each, as a row of the state.
        labels: `[B]` true classes that arrived as feedback, -1 where none did; None: none at all.
        answers: `[B, C]` logits that the samples were answered with when they arrived; None: a step that needs them
            asks the quantized model.
        answering: whether the result's `logits` will be read; if not, a move may leave some out.
        may: `[S]` which sessions can pay for a step; the others rest, where the recipe has a pace. None: all.
    """

    inputs: NDArray[Any]
    group: Index
    labels: NDArray[np.int64] | None = None
    answers: Float | None = None
    answering: bool = True
    may: NDArray[np.bool_] | None = None

    def of(self, sessions: Index, seen: NDArray[np.bool_] | None = None) -> tuple[Batch, Index]:
        """The samples of the sessions at these places, numbered anew in this order, and their positions `[b]`.

        Those that are not `seen [B]` are left out.
        """
        number = np.full(int(self.group.max(initial=-1)) + 1, -1, np.intp)
        number[sessions] = np.arange(len(sessions))
        keep = np.flatnonzero((number[self.group] >= 0) & (True if seen is None else seen))
        labels = None if self.labels is None else self.labels[keep]
        answers = None if self.answers is None else self.answers[keep]
        may = None if self.may is None else self.may[sessions]
        return Batch(self.inputs[keep], number[self.group[keep]], labels, answers, self.answering, may), keep


@dataclass(slots=True)
class Asked:
    """Rows that a step asked for: in float forward passes, in gradient passes, and of the quantized model."""

    forward: int = 0
    backward: int = 0
    quantized: int = 0

    def count(self, request: Request) -> None:
        """Add a request's rows."""
        match request:
            case Forward(rows):
                self.forward += len(rows)
            case Gradient(rows):
                self.backward += len(rows)
            case Frozen(inputs) | Serve(inputs):
                self.quantized += len(inputs)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a step, per session of the batch.

    Attributes:
        state: the state to store: the proposal where it was accepted, the old one plus a strike where not.
        outcome: `[S]` `Outcome` numbers.
        reason: `[S]` why the session goes back, a stable word: `strikes` (refused too often), or the reason of the
            reset that was due; empty where it does not.
        back_to: `[S]` the version of the checkpoint that `state` is at where the session goes back to one; where it
            goes back and this is 0, whoever holds the session sets it to the source.
        drift: `[S]` `Drift` numbers: what changed in the stream.
        levels: `[S, 5]` the latest levels of the signals that are watched for it (`signals.py`).
        logits: `[B, C]` answers to the batch, as the papers' code returns them: of the first forward pass, before
            the update, normalised with the batch as the recipe blends it; or what the move answers instead; then
            corrected by the recipe's output stage. Where a session rests, what its samples were answered with.
        loss: `[S]` mean loss of the selected samples in nats, NaN-free (0 where none).
        selected: `[S]` samples that took part in the gradient.
        distance: `[S]` relative distance of the stored theta from the source.
        asked: rows asked for in all, for the account of costs.
    """

    state: State
    outcome: NDArray[np.int64]
    reason: NDArray[np.str_]
    back_to: NDArray[np.int64]
    drift: NDArray[np.int64]
    levels: Float
    logits: Float
    loss: Float
    selected: NDArray[np.int64]
    distance: Float
    asked: Asked

    @property
    def restore(self) -> NDArray[np.bool_]:
        """Sessions `[S]` that are to be set to the source."""
        result: NDArray[np.bool_] = (self.reason != "") & (self.back_to == 0)
        return result
