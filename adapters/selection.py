"""Which samples a step learns from, and how much each counts (EATA: Niu et al. 2022, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import group_count, group_mean, softmax
from acclimate.adapters.requests import Index

EMA = "selection.ema"
SEEN = "selection.seen"


@dataclass(frozen=True, slots=True)
class Selected:
    """Weights `[B]` (0: not selected) and the filter fields of the state after this batch."""

    weight: Float
    state: State


@dataclass(frozen=True, slots=True)
class Everything:
    """Every sample, weight one: TENT."""

    def template(self, classes: int) -> State:
        """No state."""
        return {}

    def select(self, state: State, logits: Float, loss: Float, group: Index) -> Selected:
        """Weights of one for rows `[B]`."""
        return Selected(np.ones(len(loss), np.float32), {})


@dataclass(frozen=True, slots=True)
class ReliableAndNew:
    """Keep predictions that are confident and unlike the session's running mean of predictions.

    Attributes:
        margin: entropy margin E0 in nats; a sample with `H < margin` is reliable (eq. 3). 0.4 ln C in the paper.
        epsilon: a sample is redundant if `|cos(p, ema)| >= epsilon` (eq. 5).
        momentum: of the running mean of the predictions that passed both filters.
    """

    margin: float
    epsilon: float
    momentum: float = 0.9

    def template(self, classes: int) -> State:
        """The running mean of predictions `[C]`, and whether there is one yet."""
        return {EMA: np.zeros(classes, np.float32), SEEN: np.zeros((), np.bool_)}

    def select(self, state: State, logits: Float, loss: Float, group: Index) -> Selected:
        """Weight `exp(margin - H)` for rows that pass both filters, zero for the others (eq. 4).

        The running mean starts as the mean of a session's first reliable predictions, and then moves only by
        batches in which something passed.
        """
        groups = len(state[SEEN])
        probabilities = softmax(logits)
        reliable = loss < self.margin
        ema, seen = state[EMA], state[SEEN]
        similarity = np.abs(_cosine(probabilities, ema[group]))
        passed = reliable & ((similarity < self.epsilon) | ~seen[group])
        mean = group_mean(probabilities[passed], group[passed], groups)
        any_passed = group_count(group[passed], groups) > 0
        moved = np.where(seen[:, np.newaxis], self.momentum * ema + (1 - self.momentum) * mean, mean)
        weight = np.where(passed, np.exp(self.margin - loss), 0.0).astype(np.float32)
        new_ema = np.where(any_passed[:, np.newaxis], moved, ema).astype(np.float32)
        return Selected(weight, {EMA: new_ema, SEEN: seen | any_passed})


def _cosine(a: Float, b: Float) -> NDArray[np.float32]:
    scale = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    result: NDArray[np.float32] = (a * b).sum(axis=-1) / np.maximum(scale, np.float32(1e-12))
    return result


Selection = Everything | ReliableAndNew
