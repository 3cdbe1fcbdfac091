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
from acclimate.adapters.numerics import group_mean, group_sum, log_softmax, softmax
from acclimate.adapters.requests import Index
from acclimate.adapters.source import Source

TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True, slots=True)
class Laplacian:
    """Fixed-point iterations of `Y = softmax(log p + W Y)` over the rows of each session.

    W has a one for each of a row's `neighbours` nearest other rows of its session; or, with `kernel`, a radial kernel
    of all rows' distances, as wide as the mean distance of the `neighbours`-th nearest, each row its own first.
    Nearness is measured between normalised features where the pass has them, as the paper does. The quantized graphs
    that serve have none; there it is the Hellinger distance between predictions.

    Attributes:
        neighbours: 5 in the paper.
        kernel: the paper's radial affinity in place of its nearest neighbours.
        tolerance: relative change of the energy at which a session stops, 1e-8 in the paper.
        most: iterations at most, 100 in the paper.
    """

    reads_features: ClassVar[bool] = False
    neighbours: int = 5
    kernel: bool = False
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
        places = _unit(features) if len(features) else np.sqrt(answer)
        affinity = self._affinity(places, group)
        sessions = int(group.max()) + 1
        energy, active = np.full(sessions, np.inf), np.ones(sessions, np.bool_)
        for _ in range(self.most):
            moved = softmax(log_p + _pull(affinity, answer))
            answer = np.where(active[group, np.newaxis], moved, answer)
            new = group_sum(_energy(log_p, affinity, answer), group, sessions)
            active &= np.abs(new - energy) > self.tolerance * np.abs(new)
            energy = new
            if not active.any():
                break
        return np.log(np.maximum(answer, TINY)), {}

    def _affinity(self, places: Float, group: Index) -> Float:
        """W `[B, B]`, zero between sessions; ties between neighbours go to the earlier row."""
        squared = np.maximum(2 - 2 * places @ places.T, 0)
        same = group[:, np.newaxis] == group
        squared[~same] = np.inf
        if self.kernel:
            order = np.sort(squared, axis=1)
            last = np.minimum(self.neighbours, same.sum(axis=1)) - 1
            furthest = np.sqrt(order[np.arange(len(group)), last])
            width = np.maximum(group_mean(furthest, group, int(group.max()) + 1), np.float32(1e-6))[group, np.newaxis]
            radial: Float = np.exp(-squared / (2 * width**2)).astype(np.float32)
            return radial
        np.fill_diagonal(squared, np.inf)
        index = np.argsort(squared, axis=1, kind="stable")[:, : self.neighbours]
        reachable = np.isfinite(np.take_along_axis(squared, index, axis=1))
        affinity: Float = np.zeros_like(squared)
        np.put_along_axis(affinity, index, reachable.astype(np.float32), axis=1)
        return affinity


def _unit(features: Float) -> Float:
    """Features `[B, D]` of length one."""
    length = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), TINY)
    unit: Float = (features / length).astype(np.float32)
    return unit


def _pull(affinity: Float, answer: Float) -> Float:
    """`W Y` `[B, C]`; an answer that is not a number is no neighbour, for nothing times it would be none either."""
    result: Float = affinity @ np.where(np.isfinite(answer), answer, 0)
    return result


def _energy(log_p: Float, affinity: Float, answer: Float) -> NDArray[np.float64]:
    """Each row's part `[B]` of the energy whose minimum the iterations seek (eq. 4)."""
    log_y = np.log(np.maximum(answer, TINY))
    row: NDArray[np.float64] = (answer * (log_y - log_p - _pull(affinity, answer))).sum(axis=1, dtype=np.float64)
    return row
