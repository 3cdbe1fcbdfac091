"""MEMO: make one sample's views agree, answer it, and forget (Zhang, Levine and Finn 2022, algorithm 1).

Every row of a batch gets parameters of its own for the length of the step, so sessions keep nothing: what is learnt
goes into the step's answers, and a session that is answered before it learns is served the source.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.asking import ask_gradients, ask_outputs
from acclimate.adapters.augmentations import Space, mixed_view
from acclimate.adapters.bank import State
from acclimate.adapters.fields import STEPS
from acclimate.adapters.moves.base import Moved, Seen
from acclimate.adapters.numerics import entropy, group_count, group_mean, group_sum
from acclimate.adapters.objectives.agreement import marginal_entropy
from acclimate.adapters.randomness import keys, rank
from acclimate.adapters.requests import Forward, Gradient, Reply, Request, Rows
from acclimate.adapters.source import Source

VIEW = 41


@dataclass(frozen=True, slots=True)
class AgreeingViews:
    """MEMO's update.

    Attributes:
        lr: of the one step of plain gradient descent, 0.005 in the paper for CIFAR-10.
        views: augmented copies of each sample, 32 in the paper.
        seed: of the views.
    """

    lr: float = 0.005
    views: int = 32
    seed: int = 0

    def template(self, source: Source) -> State:
        """No state."""
        return {}

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """One gradient per sample, from its own views, and its answer at its own parameters."""
        rows, group = seen.still(), seen.rows.group
        size, classes = seen.logits.shape
        looks = self._views(source, state, rows)
        outputs = yield from ask_outputs(Forward(looks))
        value = marginal_entropy(outputs.logits.reshape(size, self.views, classes))
        reply = yield from ask_gradients(Gradient(looks, value.cotangent.reshape(-1, classes)))
        gradient = group_sum(reply.grad_theta, np.repeat(np.arange(size), self.views), size)
        theta = (rows.theta - np.float32(self.lr) * gradient).astype(np.float32)
        outputs = yield from ask_outputs(Forward(replace(rows, theta=theta)))
        return Moved(
            {},
            group_mean(entropy(outputs.logits), group, seen.sessions),
            group_count(group, seen.sessions),
            answers=outputs.logits,
        )

    def _views(self, source: Source, state: State, rows: Rows) -> Rows:
        """`views` rows for each row, one after the other."""
        repeated = rows.take(np.repeat(np.arange(len(rows)), self.views))
        view = np.tile(np.arange(self.views), len(rows))
        place = np.repeat(rank(rows.group), self.views)
        key = keys(self.seed, VIEW, state[STEPS][repeated.group], place, view)
        return replace(repeated, inputs=mixed_view(repeated.inputs, key, Space.of(source.canary_inputs)))
