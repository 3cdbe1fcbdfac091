"""LAME: let neighbouring predictions agree (Boudiaf et al. 2022, eqs. 2-5). No parameter moves.

Good where neighbours in a stream tend to be of one class, harmful where they are independent: the paper's correlated
streams gain 20 points and more, i.i.d. ones lose as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import group_sum, log_softmax, softmax
from acclimate.adapters.requests import Index
from acclimate.adapters.source import Source

TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True, slots=True)
class Laplacian:
    """Fixed-point iterations of `Y = softmax(log p + W Y)` over the rows of each session.

    W has a one for each of a row's `neighbours` nearest other rows of its session. The paper measures nearness
    between features; the quantized graphs that serve have none, so it is measured between the predictions, as the
    Hellinger distance.

    Attributes:
        neighbours: 5 in the paper.
        tolerance: relative change of the energy at which a session stops, 1e-8 in the paper.
        most: iterations at most, 100 in the paper.
    """

    reads_features: ClassVar[bool] = False
    neighbours: int = 5
    tolerance: float = 1e-8
    most: int = 100

    def template(self, source: Source) -> State:
        """No state."""
        return {}

    def apply(self, source: Source, state: State, logits: Float, group: Index, features: Float) -> tuple[Float, State]:
        """Log-probabilities `[B, C]` after the iterations."""
        if len(group) == 0:
            return logits, {}
        log_p, answer = log_softmax(logits), softmax(logits)
        nearest = self._nearest(answer, group)
        sessions = int(group.max()) + 1
        energy, active = np.full(sessions, np.inf), np.ones(sessions, np.bool_)
        for _ in range(self.most):
            moved = softmax(log_p + _pull(nearest, answer))
            answer = np.where(active[group, np.newaxis], moved, answer)
            new = group_sum(_energy(log_p, nearest, answer), group, sessions)
            active &= np.abs(new - energy) > self.tolerance * np.abs(new)
            energy = new
            if not active.any():
                break
        return np.log(np.maximum(answer, TINY)), {}

    def _nearest(self, p: Float, group: Index) -> _Neighbours:
        """The nearest other rows of the same session; ties go to the earlier row."""
        roots = np.sqrt(p)
        distance = 1 - roots @ roots.T
        distance[group[:, np.newaxis] != group] = np.inf
        np.fill_diagonal(distance, np.inf)
        index = np.argsort(distance, axis=1, kind="stable")[:, : self.neighbours]
        reachable = np.isfinite(np.take_along_axis(distance, index, axis=1))
        return _Neighbours(index, reachable.astype(np.float32))


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """Row numbers `[B, k]`, and 1 where the neighbour exists."""

    index: Index
    exists: Float


def _pull(nearest: _Neighbours, answer: Float) -> Float:
    """`W Y`: the sum of the neighbours' answers `[B, C]`."""
    result: Float = (answer[nearest.index] * nearest.exists[:, :, np.newaxis]).sum(axis=1)
    return result


def _energy(log_p: Float, nearest: _Neighbours, answer: Float) -> NDArray[np.float64]:
    """Each row's part `[B]` of the energy whose minimum the iterations seek (eq. 4)."""
    log_y = np.log(np.maximum(answer, TINY))
    row: NDArray[np.float64] = (answer * (log_y - log_p - _pull(nearest, answer))).sum(axis=1, dtype=np.float64)
    return row
