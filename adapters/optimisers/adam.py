"""Adam (Kingma and Ba 2015, algorithm 1), per session."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float

FIRST = "optimiser.first"
SECOND = "optimiser.second"
COUNT = "optimiser.count"


@dataclass(frozen=True, slots=True)
class Adam:
    """Bias-corrected first and second moments; every session counts its own steps."""

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def template(self, parameters: int) -> State:
        """Moments `[P]` and the step count."""
        zeros = np.zeros(parameters, np.float32)
        return {FIRST: zeros, SECOND: zeros.copy(), COUNT: np.zeros((), np.int64)}

    def next(self, state: State, theta: Float, gradient: Float) -> tuple[Float, State]:
        """New theta `[S, P]` and moments for theta and gradient `[S, P]`."""
        step, moments = bias_corrected(state, gradient, self.beta1, self.beta2, self.epsilon)
        return (theta - np.float32(self.lr) * step).astype(np.float32), moments


def bias_corrected(state: State, gradient: Float, beta1: float, beta2: float, epsilon: float) -> tuple[Float, State]:
    """The step `[S, P]` of a learning rate of one along a gradient `[S, P]`, and the moments with it in them."""
    count = state[COUNT] + 1
    first = np.float32(beta1) * state[FIRST] + np.float32(1 - beta1) * gradient
    second = np.float32(beta2) * state[SECOND] + np.float32(1 - beta2) * gradient**2
    correction1 = (1 - beta1**count)[:, np.newaxis].astype(np.float32)
    correction2 = (1 - beta2**count)[:, np.newaxis].astype(np.float32)
    step = (first / correction1) / (np.sqrt(second / correction2) + np.float32(epsilon))
    return step.astype(np.float32, copy=False), {FIRST: first, SECOND: second, COUNT: count}
