"""TEMPO's alternation (arXiv 2604.19295) for classifiers: recalibrate the critic, then learn from what it trusts.

M-step: EATA's update with the critic's temperature and margin in place of constants and each pseudo-label weighted by
the reliability of its class, and cross-entropy for the samples whose label has arrived. E-step, every so many steps:
see `Critic`. Until labels arrive every factor is exactly 1, and the step is EATA's to the bit.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.critic import MARGIN, RELIABILITY, TEMPERATURE, Critic
from acclimate.adapters.fields import STEPS
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen
from acclimate.adapters.moves.following import Following
from acclimate.adapters.objectives import Objective, Value
from acclimate.adapters.objectives.agreement import label_cross_entropy
from acclimate.adapters.requests import Reply, Request
from acclimate.adapters.selection import ReliableAndNew
from acclimate.adapters.source import Source


@dataclass(frozen=True)
class Critical:
    """The alternating update.

    Attributes:
        objective: the loss of samples without a label.
        following: optimiser, pull, and whether gradients flow through the batch statistics.
        selection: whose margin is the critic's first.
        critic: what is fitted to the labels.
        every: steps between two calibrations.
        feedback: weight of a sample with a label against that of a pseudo-label of no entropy.
    """

    objective: Objective
    following: Following
    selection: ReliableAndNew
    critic: Critic
    every: int = 8
    feedback: float = 1.0

    def template(self, source: Source) -> State:
        """What the filter, the critic and the optimiser remember."""
        filters = self.selection.template(source.classes)
        return filters | self.critic.template(source.classes) | self.following.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Learn with the critic as it is, then remember the labels and recalibrate it where that is due."""
        value, weight, filters = self._weigh(state, seen)
        moved = yield from self.following.descend(source, state, seen, value, weight)
        memory = self.critic.remember(state, seen.logits, seen.labels, seen.rows.group)
        fitted = self.critic.recalibrate(state | memory, (state[STEPS] + 1) % self.every == 0)
        return replace(moved, state=moved.state | filters | memory | fitted)

    def _weigh(self, state: State, seen: Seen) -> tuple[Value, Float, State]:
        """Loss and weight `[B]` of every row, and the filter's fields."""
        group, labelled = seen.rows.group, seen.labels >= 0
        temperature = state[TEMPERATURE][group, np.newaxis]
        own = self.objective((seen.logits / temperature).astype(np.float32))
        # The filter has one margin for all; moving the loss by the difference moves the margin.
        offset = state[MARGIN] - np.float32(self.selection.margin)
        chosen = self.selection.select(state, seen.logits, own.loss - offset[group], group)
        trust = state[RELIABILITY][group, seen.logits.argmax(axis=1)]
        most = np.float32(self.feedback * np.exp(self.selection.margin))
        weight = np.where(labelled, most, chosen.weight * trust).astype(np.float32)
        given = label_cross_entropy(seen.logits, seen.labels)
        loss = np.where(labelled, given.loss, own.loss)
        cotangent = np.where(labelled[:, np.newaxis], given.cotangent, own.cotangent / temperature)
        return Value(loss, cotangent), weight, chosen.state
