"""The pull toward the source, weighted by how much the source model needs each parameter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acclimate.adapters.layout import Float


@dataclass(frozen=True, slots=True)
class FisherPull:
    """`beta * sum_i fisher_i (theta_i - theta0_i)^2` (EATA: Niu et al. 2022, eq. 8).

    `beta` is 2000 in the paper for ImageNet and 1 in public CIFAR-10 configurations.
    """

    beta: float

    def gradient(self, theta: Float, source: Float, fisher: Float) -> Float:
        """Its gradient `[S, P]` at theta `[S, P]`, for source and fisher `[P]`."""
        return np.float32(2 * self.beta) * fisher * (theta - source)
