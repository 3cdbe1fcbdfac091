"""Stochastic gradient descent with momentum, per session."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float

VELOCITY = "optimiser.velocity"


@dataclass(frozen=True, slots=True)
class Sgd:
    """`v = momentum * v + g; theta = theta - lr * v`, torch.optim.SGD's form (no dampening, no Nesterov)."""

    lr: float
    momentum: float = 0.9

    def template(self, parameters: int) -> State:
        """One velocity row `[P]`."""
        return {VELOCITY: np.zeros(parameters, np.float32)}

    def next(self, state: State, theta: Float, gradient: Float) -> tuple[Float, State]:
        """New theta `[S, P]` and velocity for theta and gradient `[S, P]`."""
        velocity = np.float32(self.momentum) * state[VELOCITY] + gradient
        return theta - np.float32(self.lr) * velocity, {VELOCITY: velocity}
