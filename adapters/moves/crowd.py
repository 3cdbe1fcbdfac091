"""OSTTA: learn only where adaptation has not lowered the source model's confidence in its own answer.

Lee et al. 2023, "Towards open-set test-time adaptation utilizing the wisdom of crowds in entropy minimization",
eq. 4: samples of classes the model does not know tend to lose confidence while it adapts to those it knows.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.asking import ask_outputs
from acclimate.adapters.bank import State
from acclimate.adapters.moves.base import Moved, Seen
from acclimate.adapters.moves.following import Following
from acclimate.adapters.numerics import softmax
from acclimate.adapters.objectives import Objective
from acclimate.adapters.requests import Forward, Reply, Request
from acclimate.adapters.selection import Selection
from acclimate.adapters.source import Source


@dataclass(frozen=True)
class CrowdFiltered:
    """Any selective objective, behind the open-set filter.

    Attributes:
        objective: the loss.
        following: optimiser, pull, and whether gradients flow through the batch statistics.
        selection: which of the samples that pass the filter the loss counts, and how much.
    """

    objective: Objective
    following: Following
    selection: Selection

    def template(self, source: Source) -> State:
        """What the selection and the optimiser remember."""
        return self.selection.template(source.classes) | self.following.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Compare confidence at the source's parameters with the session's, under the same statistics."""
        rows = seen.rows
        anchor = yield from ask_outputs(Forward(replace(rows, theta=np.broadcast_to(source.theta, rows.theta.shape))))
        before, now = softmax(anchor.logits), softmax(seen.logits)
        answer = before.argmax(axis=1)[:, np.newaxis]
        known = (np.take_along_axis(now, answer, 1) >= np.take_along_axis(before, answer, 1))[:, 0]
        value = self.objective(seen.logits)
        # An infinite loss is what no selection finds reliable; the weight is cut for those that do not look.
        chosen = self.selection.select(state, seen.logits, np.where(known, value.loss, np.float32(np.inf)), rows.group)
        weight = np.where(known, chosen.weight, 0).astype(np.float32)
        moved = yield from self.following.descend(source, state, seen, value, weight)
        return replace(moved, state=moved.state | chosen.state)
