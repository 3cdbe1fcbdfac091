"""TEMPO's alternation (arXiv 2604.19295) for classifiers: recalibrate the critic, then learn from what it trusts.

M-step: EATA's update with the critic's temperature and margin in place of constants and each pseudo-label weighted by
the reliability of its class, and cross-entropy for the samples whose label has arrived. E-step, every so many steps:
see `Critic`. Until labels arrive every factor is exactly 1, and the step is EATA's to the bit.

Where the critic speaks the steps are larger, and gradients flow through the batch statistics: labels hold what entropy
alone would lose at that pace, and with the statistics fixed not even labels for every sample do (`docs/benchmarks.md`).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.critic import MARGIN, RATE, RELIABILITY, TEMPERATURE, Critic
from acclimate.adapters.fields import STEPS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen, only_where
from acclimate.adapters.moves.following import Following
from acclimate.adapters.numerics import group_sum
from acclimate.adapters.objectives import Objective, Value
from acclimate.adapters.objectives.agreement import label_cross_entropy
from acclimate.adapters.requests import Reply, Request
from acclimate.adapters.selection import ReliableAndNew
from acclimate.adapters.source import Source

BOLD = "critical.bold"


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
        boldness: how many times larger a step is where the critic speaks and labels are many.
        plenty: labels a step that are many; of fewer, steps are longer by as much less.
    """

    objective: Objective
    following: Following
    selection: ReliableAndNew
    critic: Critic
    every: int = 8
    feedback: float = 0.3
    boldness: float = 4.0
    plenty: float = 2.0

    def template(self, source: Source) -> State:
        """What the filter, the critic and the optimiser remember, and whether the latest step was bold."""
        filters = self.selection.template(source.classes)
        own = self.critic.template(source.classes) | {BOLD: np.zeros((), np.bool_)}
        return filters | own | self.following.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Learn with the critic as it is, then remember the labels and recalibrate it where that is due."""
        value, weight, filters = self._weigh(state, seen)
        bold = self.critic.speaks(state)
        through = bold | self.following.through_statistics
        # Gradients with fixed statistics are much larger, and Adam would remember them for a thousand steps.
        anew = {name: value[np.newaxis] for name, value in self.following.template(source).items()}
        turned = only_where(bold != state[BOLD], anew, state)
        moved = yield from self.following.descend(source, state | turned, seen, value, weight, through)
        memory = self.critic.remember(state, seen.logits, seen.labels, seen.rows.group)
        fitted = self.critic.recalibrate(state | memory, (state[STEPS] + 1) % self.every == 0)
        theta = self._longer(state, moved.state, bold)
        return replace(moved, state=turned | theta | {BOLD: bold} | filters | memory | fitted)

    def _longer(self, state: State, moved: State, bold: NDArray[np.bool_]) -> State:
        """The fields that a step has changed, with theta farther along it in the sessions `[S]` that are bold."""
        if THETA not in moved:
            return moved
        # Few labels do not hold long steps.
        share = np.minimum(state[RATE] / np.float32(self.plenty), 1)
        longer = (1 + (self.boldness - 1) * share).astype(np.float32)
        theta = state[THETA] + longer[:, np.newaxis] * (moved[THETA] - state[THETA])
        return moved | only_where(bold, {THETA: theta}, moved)

    def _weigh(self, state: State, seen: Seen) -> tuple[Value, Float, State]:
        """Loss and weight `[B]` of every row, and the filter's fields."""
        group, labelled = seen.rows.group, seen.labels >= 0
        temperature = state[TEMPERATURE][group, np.newaxis]
        own = self.objective((seen.logits / temperature).astype(np.float32))
        # The filter has one margin for all; moving the loss by the difference moves the margin.
        offset = state[MARGIN] - np.float32(self.selection.margin)
        chosen = self.selection.select(state, seen.logits, own.loss - offset[group], group)
        trusted = chosen.weight * state[RELIABILITY][group, seen.logits.argmax(axis=1)]
        # Doubt about classes weighs pseudo-labels against each other, not all of them against the few labels.
        whole, part = (group_sum(each, group, seen.sessions) for each in (chosen.weight, trusted))
        trusted = trusted * (whole / np.where(part > 0, part, 1))[group]
        most = np.float32(self.feedback * np.exp(self.selection.margin))
        weight = np.where(labelled, most, trusted).astype(np.float32)
        given = label_cross_entropy(seen.logits, seen.labels)
        loss = np.where(labelled, given.loss, own.loss)
        cotangent = np.where(labelled[:, np.newaxis], given.cotangent, own.cotangent / temperature)
        return Value(loss, cotangent), weight, chosen.state
