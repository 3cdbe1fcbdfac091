"""AdamW (Loshchilov and Hutter 2019, "Decoupled weight decay regularization", arXiv 1711.05101, algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.optimisers.adam import COUNT, FIRST, SECOND, bias_corrected


@dataclass(frozen=True, slots=True)
class AdamW:
    """Adam whose decay pulls theta toward the source, not toward zero: no update is what zero means for a low rank."""

    lr: float
    decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def template(self, parameters: int, sessions: int) -> State:
        """Moments `[S, P]` and step counts `[S]`."""
        zeros = np.zeros((sessions, parameters), np.float32)
        return {FIRST: zeros, SECOND: zeros.copy(), COUNT: np.zeros(sessions, np.int64)}

    def next(self, state: State, theta: Float, gradient: Float, source: Float, factor: Float) -> tuple[Float, State]:
        """New theta and moments.

        Args:
            state: moments `[S, P]`, counts `[S]`.
            theta: `[S, P]`.
            gradient: `[S, P]`.
            source: `[P]`, what decay pulls toward.
            factor: `[S]` of the learning rate, a schedule's.
        """
        step, moments = bias_corrected(state, gradient, self.beta1, self.beta2, self.epsilon)
        rate = (self.lr * factor)[:, np.newaxis].astype(np.float32)
        moved = theta - source
        moved *= np.float32(self.decay)
        moved += step
        moved *= rate
        return np.subtract(theta, moved, out=moved).astype(np.float32, copy=False), moments
