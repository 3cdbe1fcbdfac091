"""How much a session's running normalisation statistics trust the batch it has just gathered.

A single image's statistics ruin every method, so a session normalises with statistics that start as the
source's and move by `alpha = n / (n + prior)` toward those of its last `n` samples: the prior-count form of
Schneider et al. 2020 (eq. 3), applied step after step. The same blend normalises the forward and the gradient
pass of the step, so what is optimised is what will be served.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float


@dataclass(frozen=True, slots=True)
class Blend:
    """`prior` counts how many samples the present statistics are worth; 0 means the batch alone (TENT)."""

    prior: float

    def alpha(self, rows: NDArray[np.int64]) -> Float:
        """Weight of the batch `[S]` for sessions with `rows` samples each."""
        if self.prior == 0:
            return np.ones(len(rows), np.float32)
        return (rows / (rows + self.prior)).astype(np.float32)

    def move(self, stats: Float, batch_stats: Float, alpha: Float) -> Float:
        """New running statistics `[S, Q]`."""
        weight = alpha[:, np.newaxis]
        return (np.float32(1) - weight) * stats + weight * batch_stats
