"""ZOA: a gradient from two forward passes, by simultaneous perturbation (SPSA: Spall 1992; ZOA: Deng et al. 2025).

No backward pass is asked for, so it runs where there is none. The loss is the mean entropy and, as in the paper, how
far statistics inside the network are from the source's: here the statistics that its normalisations see.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.asking import ask_outputs
from acclimate.adapters.bank import State
from acclimate.adapters.discrepancy import discrepancy
from acclimate.adapters.fields import STEPS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen
from acclimate.adapters.numerics import entropy, group_count, group_mean
from acclimate.adapters.optimisers import Optimiser
from acclimate.adapters.randomness import keys, uniform
from acclimate.adapters.requests import Forward, Index, Reply, Request
from acclimate.adapters.source import Source

NUDGE = 51


@dataclass(frozen=True)
class Perturbed:
    """One-sided SPSA: `g = (L(theta + c d) - L(theta)) / (c d)`, `d` of random sign and size in [0.5, 1].

    Attributes:
        optimiser: plain SGD in the paper.
        size: c, 0.01 in the paper for a ResNet-50.
        alignment: weight of the statistics against the entropy, 1 in the paper for a ResNet-50.
        decay: weight decay of theta's offset from the source, 0.4 in the paper for a ViT.
        seed: of the perturbations.
    """

    optimiser: Optimiser
    size: float = 0.01
    alignment: float = 1.0
    decay: float = 0.4
    seed: int = 0

    def template(self, source: Source) -> State:
        """What the optimiser remembers."""
        return self.optimiser.template(source.parameters.size)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Reuse the first pass as L(theta), ask for one more at the perturbed point."""
        rows, theta = seen.rows, state[THETA]
        here = self._loss(source, seen.logits, seen.batch_stats, rows.group)
        draws = uniform(keys(self.seed, NUDGE, state[STEPS]), 2 * theta.shape[1])
        sign = np.where(draws[:, ::2] < 0.5, np.float32(-1), np.float32(1))
        nudge = np.float32(self.size) * sign * (np.float32(0.5) + np.float32(0.5) * draws[:, 1::2])
        outputs = yield from ask_outputs(Forward(replace(rows, theta=(theta + nudge)[rows.group])))
        one_row_each = np.unique(rows.group, return_index=True)[1]
        there = self._loss(source, outputs.logits, outputs.batch_stats[one_row_each], rows.group)
        gradient = (there - here)[:, np.newaxis] / nudge + np.float32(self.decay) * (theta - source.theta)
        moved, memory = self.optimiser.next(state, theta, gradient)
        return Moved({THETA: moved} | memory, here, group_count(rows.group, seen.sessions), gradient=gradient)

    def _loss(self, source: Source, logits: Float, batch_stats: Float, group: Index) -> Float:
        mean = group_mean(entropy(logits), group, len(batch_stats))
        return mean + np.float32(self.alignment) * discrepancy(source, batch_stats)
