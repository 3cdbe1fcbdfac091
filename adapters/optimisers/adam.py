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
    correction1, correction2 = ((1 - beta**count)[:, np.newaxis].astype(np.float32) for beta in (beta1, beta2))
    # In place: a temporary array for each product took a third of the time of rows of a million parameters.
    first = np.float32(beta1) * state[FIRST]
    part = np.float32(1 - beta1) * gradient
    first += part
    second = np.float32(beta2) * state[SECOND]
    np.square(gradient, out=part)
    part *= np.float32(1 - beta2)
    second += part
    np.sqrt(np.divide(second, correction2, out=part), out=part)
    part += np.float32(epsilon)
    step = first / correction1
    step /= part
    return step, {FIRST: first, SECOND: second, COUNT: count}
