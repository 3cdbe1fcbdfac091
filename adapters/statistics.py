"""How much a session's normalisation statistics trust the batch it has just gathered.

A single image's statistics ruin every method, so a session normalises with statistics that start as the
source's and move by `alpha = n / (n + prior)` toward those of its last `n` samples: the prior-count form of
Schneider et al. 2020 (eq. 3), applied step after step. The same blend normalises the forward and the gradient
pass of the step, so what is optimised is what will be served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float


class Statistics(Protocol):
    """What normalises a step, and what the session serves after it."""

    def alpha(self, rows: NDArray[np.int64]) -> Float:
        """Weight of the batch statistics `[S]` for sessions with `rows` samples each."""

    def base(self, stats: Float, source: Float) -> Float:
        """Statistics `[S, Q]` that the batch is blended with, from the session's `[S, Q]` and the source's `[Q]`."""

    def move(self, stats: Float, batch_stats: Float, alpha: Float) -> Float:
        """Statistics `[S, Q]` to serve with, from those of `base` and of the batch."""

    @property
    def rereads(self) -> bool:
        """Whether the step's answers are those of a second pass, with the statistics that the first has moved."""


@dataclass(frozen=True, slots=True)
class Blend:
    """`prior` counts how many samples the present statistics are worth; 0 means the batch alone (TENT)."""

    prior: float

    def alpha(self, rows: NDArray[np.int64]) -> Float:
        """Weight of the batch `[S]` for sessions with `rows` samples each."""
        if self.prior == 0:
            return np.ones(len(rows), np.float32)
        return (rows / (rows + self.prior)).astype(np.float32)

    def base(self, stats: Float, source: Float) -> Float:
        """The session's own."""
        return stats

    def move(self, stats: Float, batch_stats: Float, alpha: Float) -> Float:
        """New running statistics `[S, Q]`."""
        return _mixed(stats, batch_stats, alpha)

    @property
    def rereads(self) -> bool:
        """No."""
        return False


@dataclass(frozen=True, slots=True)
class Running:
    """Move by a fixed `momentum` for each batch, whatever its size: batch normalisation's own running statistics.

    Torch keeps the unbiased variance there; ours is biased, which differs by `1 / (n - 1)` for the `n` values of a
    channel in the batch.
    """

    momentum: float

    def alpha(self, rows: NDArray[np.int64]) -> Float:
        """The momentum, for every session."""
        return np.full(len(rows), self.momentum, np.float32)

    def base(self, stats: Float, source: Float) -> Float:
        """The session's own."""
        return stats

    def move(self, stats: Float, batch_stats: Float, alpha: Float) -> Float:
        """New running statistics `[S, Q]`."""
        return _mixed(stats, batch_stats, alpha)

    @property
    def rereads(self) -> bool:
        """No."""
        return False


@dataclass(frozen=True, slots=True)
class TrainMode:
    """A pass in train mode, whose layers normalise with the batch alone, moves running statistics by `momentum`.

    A second pass, in evaluation mode, answers (public code for batch normalisation's running statistics at test time).
    What a deep layer measures so is not what it sees in the second pass: `Running` measures the latter.
    """

    momentum: float

    def alpha(self, rows: NDArray[np.int64]) -> Float:
        """The batch alone."""
        return np.ones(len(rows), np.float32)

    def base(self, stats: Float, source: Float) -> Float:
        """The session's own."""
        return stats

    def move(self, stats: Float, batch_stats: Float, alpha: Float) -> Float:
        """New running statistics `[S, Q]`."""
        return _mixed(stats, batch_stats, np.float32(self.momentum) * alpha)

    @property
    def rereads(self) -> bool:
        """Yes."""
        return True


@dataclass(frozen=True, slots=True)
class SourceBlend:
    """The latest batch blended with the source's statistics; earlier batches are forgotten (Schneider et al. 2020)."""

    weight: float

    def alpha(self, rows: NDArray[np.int64]) -> Float:
        """The weight of the batch, for every session."""
        return np.full(len(rows), self.weight, np.float32)

    def base(self, stats: Float, source: Float) -> Float:
        """The source's."""
        return np.broadcast_to(source, stats.shape)

    def move(self, stats: Float, batch_stats: Float, alpha: Float) -> Float:
        """The blend `[S, Q]`."""
        return _mixed(stats, batch_stats, alpha)

    @property
    def rereads(self) -> bool:
        """No."""
        return False


@dataclass(frozen=True, slots=True)
class Held:
    """Normalise with the session's statistics and leave them alone; a move may change them instead."""

    def alpha(self, rows: NDArray[np.int64]) -> Float:
        """Zero: the batch does not count."""
        return np.zeros(len(rows), np.float32)

    def base(self, stats: Float, source: Float) -> Float:
        """The session's own."""
        return stats

    def move(self, stats: Float, batch_stats: Float, alpha: Float) -> Float:
        """The same statistics."""
        return stats

    @property
    def rereads(self) -> bool:
        """No."""
        return False


def _mixed(stats: Float, batch_stats: Float, alpha: Float) -> Float:
    weight = alpha[:, np.newaxis]
    return (np.float32(1) - weight) * stats + weight * batch_stats
