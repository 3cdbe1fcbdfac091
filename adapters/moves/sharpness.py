"""SAR: sharpness-aware entropy minimisation of reliable samples (Niu et al. 2023, eqs. 2-6 and algorithm 1).

Two gradients: one at theta finds the worst nearby point `theta + rho g / ||g||`, one there is applied at theta.
Samples must be reliable at both. If the running loss falls below a floor the model has become too sure of too
little, and goes back to the source.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.asking import ask_gradients, ask_outputs
from acclimate.adapters.bank import State
from acclimate.adapters.fields import THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen, only_where, weighted_share
from acclimate.adapters.numerics import group_sum
from acclimate.adapters.objectives import Objective
from acclimate.adapters.optimisers import Optimiser
from acclimate.adapters.requests import Forward, Gradient, Reply, Request, Rows
from acclimate.adapters.source import Source

LOSS = "sar.loss"
SEEN = "sar.seen"
RECOVER = "sar.recover"


@dataclass(frozen=True)
class SharpnessAware:
    """SAR's update.

    Attributes:
        objective: the loss, entropy in the paper.
        optimiser: SGD with momentum 0.9 in the paper.
        margin: entropy margin in nats, 0.4 ln C in the paper.
        rho: radius of the perturbation, 0.05 in the paper.
        floor: running loss in nats below which the session goes back to the source, 0.2 in the paper.
    """

    objective: Objective
    optimiser: Optimiser
    margin: float
    rho: float = 0.05
    floor: float = 0.2

    def template(self, source: Source) -> State:
        """The running loss, whether there is one, and whether to recover."""
        memory = {LOSS: np.zeros((), np.float32), SEEN: np.zeros((), np.bool_), RECOVER: np.zeros((), np.bool_)}
        return memory | self.optimiser.template(source.parameters.size)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Climb to the perturbed point, select again there, and descend from where theta was."""
        rows, sessions = seen.rows, seen.sessions
        value = self.objective(seen.logits)
        first = (value.loss < self.margin).astype(np.float32)
        share, _ = weighted_share(first, rows.group, sessions)
        gradient = yield from self._gradient(rows, value.cotangent, share, sessions)
        norm = np.linalg.norm(gradient, axis=1, keepdims=True)
        climb = np.float32(self.rho) * gradient / np.maximum(norm, np.float32(1e-12))
        there = replace(rows, theta=(state[THETA] + climb)[rows.group])
        outputs = yield from ask_outputs(Forward(there))
        value = self.objective(outputs.logits)
        second = first * (value.loss < self.margin)
        share, kept = weighted_share(second, rows.group, sessions)
        gradient = yield from self._gradient(there, value.cotangent, share, sessions)
        loss = group_sum(share * value.loss, rows.group, sessions)
        theta, memory = self.optimiser.next(state, state[THETA], gradient)
        moved = only_where(kept > 0, {THETA: theta} | memory, state)
        return Moved(moved | self._watch(state, loss, kept > 0), loss, kept, gradient=gradient)

    def _gradient(self, rows: Rows, cotangent: Float, share: Float, sessions: int) -> Generator[Request, Reply, Float]:
        """Per-session gradient `[S, P]` of the weighted loss, through the batch statistics."""
        reply = yield from ask_gradients(Gradient(rows, (cotangent * share[:, np.newaxis]).astype(np.float32)))
        total: Float = group_sum(reply.grad_theta, rows.group, sessions)
        return total

    def _watch(self, state: State, loss: Float, any_kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> State:
        """The running loss after this step, and which sessions fell below the floor."""
        moved = np.where(state[SEEN], 0.9 * state[LOSS] + 0.1 * loss, loss)
        running = np.where(any_kept, moved, state[LOSS]).astype(np.float32)
        seen = state[SEEN] | any_kept
        return {LOSS: running, SEEN: seen, RECOVER: seen & (running < self.floor)}
