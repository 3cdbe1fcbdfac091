"""ROID: likelihood ratio weighted by diversity and certainty, consistency, averaging (Marsden et al. 2024, section 3).

Weights are min-max scaled within a session's batch. A batch whose weights are all alike, one of a single sample
above all, weighs its samples 1 where the authors' code divides by zero.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.asking import ask_gradients, ask_outputs
from acclimate.adapters.augmentations import Space, strong_view
from acclimate.adapters.bank import State
from acclimate.adapters.fields import STEPS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen, only_where
from acclimate.adapters.numerics import entropy, group_count, group_mean, group_sum, softmax
from acclimate.adapters.objectives import likelihood_ratio_loss
from acclimate.adapters.objectives.agreement import symmetric_cross_entropy
from acclimate.adapters.optimisers import Optimiser
from acclimate.adapters.randomness import keys, rank
from acclimate.adapters.requests import Forward, Gradient, Index, Reply, Request, Rows
from acclimate.adapters.restoration import SourceAverage
from acclimate.adapters.source import Source

MEAN = "diversity.mean"
VIEW = 12


@dataclass(frozen=True)
class DiverseAndCertain:
    """ROID's update.

    Attributes:
        optimiser: Adam in public settings.
        averaging: weight ensembling after the step.
        temperature: of the weights, 1/3 in the paper.
        momentum: of the running mean of predictions, 0.9 in the paper.
        through_statistics: whether gradients flow through the batch statistics; then every row takes part.
        seed: of the augmented views.
    """

    optimiser: Optimiser
    averaging: SourceAverage
    temperature: float = 1 / 3
    momentum: float = 0.9
    through_statistics: bool = False
    seed: int = 0

    def template(self, source: Source) -> State:
        """The running mean of predictions `[C]`, uniform at first, and the optimiser's memory."""
        mean = np.full(source.classes, 1 / source.classes, np.float32)
        return {MEAN: mean} | self.optimiser.template(source.parameters.size)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Weigh, look at one augmented view of what is kept, differentiate both, step, average."""
        group, sessions = seen.rows.group, seen.sessions
        weight, mean = self._weigh(state, seen)
        keep = np.flatnonzero(weight > 0)
        share = (weight / group_count(group, sessions)[group]).astype(np.float32)
        views = self._views(source, state, seen, keep)
        outputs = yield from ask_outputs(Forward(views))
        value = likelihood_ratio_loss(seen.logits)
        pair = symmetric_cross_entropy(outputs.logits, seen.logits[keep])
        loss = share * value.loss
        loss[keep] += share[keep] * pair.loss
        cotangent = value.cotangent.copy()
        cotangent[keep] += pair.second
        gradient = yield from self._gradient(
            seen, keep, views, share[:, np.newaxis] * cotangent, share[keep, np.newaxis] * pair.first
        )
        theta, memory = self.optimiser.next(state, state[THETA], gradient)
        moved = {THETA: self.averaging.apply(theta, source.theta)} | memory
        selected = group_count(group[keep], sessions)
        state = only_where(selected > 0, moved, state) | {MEAN: mean}
        return Moved(state, group_sum(loss, group, sessions), selected, gradient=gradient)

    def _weigh(self, state: State, seen: Seen) -> tuple[Float, Float]:
        """Weights `[B]`, zero below the mean diversity, and the new running mean `[S, C]` of predictions."""
        group, sessions = seen.rows.group, seen.sessions
        p, mean = softmax(seen.logits), state[MEAN]
        similarity = (p * mean[group]).sum(axis=1)
        similarity /= np.linalg.norm(p, axis=1) * np.linalg.norm(mean, axis=1)[group]
        diverse = _scaled(1 - similarity, group, sessions)
        certain = _scaled(-entropy(seen.logits), group, sessions)
        weight = np.exp(diverse * certain / np.float32(self.temperature))
        kept = diverse >= group_mean(diverse, group, sessions)[group]
        moved = self.momentum * mean + (1 - self.momentum) * group_mean(p, group, sessions)
        return np.where(kept, weight, 0).astype(np.float32), moved.astype(np.float32)

    def _views(self, source: Source, state: State, seen: Seen, keep: Index) -> Rows:
        """One augmented view of each kept row, in groups of their own."""
        rows = (seen.rows if self.through_statistics else seen.still()).take(keep)
        key = keys(self.seed, VIEW, state[STEPS][rows.group], rank(seen.rows.group)[keep])
        inputs = strong_view(rows.inputs, key, Space.of(source.canary_inputs))
        return replace(rows, inputs=inputs)

    def _gradient(
        self, seen: Seen, keep: Index, views: Rows, at_rows: Float, at_views: Float
    ) -> Generator[Request, Reply, Float]:
        """Gradient `[S, P]` of both terms in one request; views are groups of their own."""
        sessions = seen.sessions
        rows, cotangent = (seen.rows, at_rows) if self.through_statistics else (seen.still().take(keep), at_rows[keep])
        both = _joined(rows, replace(views, group=views.group + sessions))
        reply = yield from ask_gradients(Gradient(both, np.concatenate([cotangent, at_views]).astype(np.float32)))
        total: Float = group_sum(reply.grad_theta, both.group % sessions, sessions)
        return total


def _joined(one: Rows, other: Rows) -> Rows:
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("inputs", "theta", "stats", "group", "alpha")]
    return Rows(*(np.concatenate(pair) for pair in pairs))


def _scaled(values: Float, group: Index, sessions: int) -> Float:
    """Values `[B]` mapped to [0, 1] within each group; 0 where a group's are all alike."""
    order = np.argsort(group, kind="stable")
    present, starts = np.unique(group[order], return_index=True)
    low, high = np.zeros(sessions, np.float32), np.zeros(sessions, np.float32)
    low[present] = np.minimum.reduceat(values[order], starts)
    high[present] = np.maximum.reduceat(values[order], starts)
    span = (high - low)[group]
    return ((values - low[group]) / np.where(span == 0, 1, span)).astype(np.float32)
