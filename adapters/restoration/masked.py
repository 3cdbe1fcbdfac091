"""Putting single parameters back to the source after a step: at random, or those that the step says matter least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acclimate.adapters.layout import Float
from acclimate.adapters.randomness import Keys, uniform


@dataclass(frozen=True, slots=True)
class Stochastic:
    """Each parameter goes back with probability `rate` (CoTTA: Wang et al. 2022, eq. 8); 0.01 on CIFAR-10-C."""

    rate: float = 0.01

    def apply(self, theta: Float, source: Float, gradient: Float, key: Keys) -> Float:
        """Theta `[S, P]` with some entries of source `[P]`, drawn with the sessions' keys `[S]`."""
        return np.where(uniform(key, theta.shape[1]) < self.rate, source, theta).astype(np.float32)


@dataclass(frozen=True, slots=True)
class FisherMasked:
    """The `share` of parameters with the least squared gradient goes back (PETAL: Brahma and Rai 2023, eq. 9).

    0.03 on CIFAR-10-C. The Fisher is that of the session's present batch: the square of its gradient.
    """

    share: float = 0.03

    def apply(self, theta: Float, source: Float, gradient: Float, key: Keys) -> Float:
        """Theta `[S, P]` with the entries of source `[P]` where the gradient `[S, P]` is below its quantile."""
        fisher = gradient**2
        bar = np.quantile(fisher, self.share, axis=1, keepdims=True)
        return np.where(fisher < bar, source, theta).astype(np.float32)


Masked = Stochastic | FisherMasked
