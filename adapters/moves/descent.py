"""One gradient of a selected, weighted objective, one optimiser step, and perhaps a pull toward the source."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np

from acclimate.adapters.asking import ask_gradients
from acclimate.adapters.bank import State
from acclimate.adapters.fields import THETA
from acclimate.adapters.moves.base import Moved, Seen, only_where, weighted_share
from acclimate.adapters.numerics import group_sum
from acclimate.adapters.objectives import Objective
from acclimate.adapters.optimisers import Optimiser
from acclimate.adapters.requests import Gradient, Reply, Request
from acclimate.adapters.restoration import FisherPull
from acclimate.adapters.selection import Everything, Selection
from acclimate.adapters.source import Source


@dataclass(frozen=True)
class Descent:
    """TENT, ETA and EATA are this with different parts.

    Attributes:
        objective: the loss.
        optimiser: how theta follows the gradient.
        selection: which samples the loss counts, and how much.
        pull: regularisation toward the source, or None.
        through_statistics: whether gradients flow through the batch statistics; then every row takes part in the
            backward pass, selected or not, as in the authors' code. Otherwise only the selected rows do.
    """

    objective: Objective
    optimiser: Optimiser
    selection: Selection = field(default_factory=Everything)
    pull: FisherPull | None = None
    through_statistics: bool = False

    def template(self, source: Source) -> State:
        """What the filter and the optimiser remember."""
        return self.selection.template(source.classes) | self.optimiser.template(source.parameters.size)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Sessions in which nothing was selected keep theta and the optimiser's state."""
        value, group = self.objective(seen.logits), seen.rows.group
        chosen = self.selection.select(state, seen.logits, value.loss, group)
        share, selected = weighted_share(chosen.weight, group, seen.sessions)
        loss = group_sum(share * value.loss, group, seen.sessions)
        keep = np.flatnonzero(chosen.weight > 0)
        if len(keep) == 0:
            return Moved(chosen.state, loss, selected)
        cotangent = (value.cotangent * share[:, np.newaxis]).astype(np.float32)
        if self.through_statistics:
            rows = seen.rows
        else:
            rows, cotangent = seen.still().take(keep), cotangent[keep]
        reply = yield from ask_gradients(Gradient(rows, cotangent))
        gradient = group_sum(reply.grad_theta, rows.group, seen.sessions)
        if self.pull is not None:
            gradient = gradient + self.pull.gradient(state[THETA], source.theta, source.fisher)
        theta, memory = self.optimiser.next(state, state[THETA], gradient)
        moved = only_where(selected > 0, {THETA: theta} | memory, state)
        return Moved(moved | chosen.state, loss, selected)
