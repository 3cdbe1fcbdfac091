"""A constant pull toward the source: average theta with it after each step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acclimate.adapters.layout import Float


@dataclass(frozen=True, slots=True)
class SourceAverage:
    """`theta <- momentum theta + (1 - momentum) theta0` (ROID: Marsden et al. 2024, eq. 6); 0.99 in the paper."""

    momentum: float = 0.99

    def apply(self, theta: Float, source: Float) -> Float:
        """Averaged theta `[S, P]` for theta `[S, P]` and the source's `[P]`."""
        return np.float32(self.momentum) * theta + np.float32(1 - self.momentum) * source
