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

    def apply(self, theta: Float, source: Float, fisher: Float) -> Float:
        """Theta `[S, P]` after a step of its own toward the source: the penalty's proximal point, at unit step size.

        It shrinks each offset by `1 + 2 beta fisher_i`, so no `beta` overshoots (Parikh and Boyd 2014, section 6.1.1).
        """
        return (source + (theta - source) / (1 + np.float32(2 * self.beta) * fisher)).astype(np.float32)
