"""One gradient of a selected, weighted objective, and one step along it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace

from acclimate.adapters.bank import State
from acclimate.adapters.moves.base import Moved, Seen
from acclimate.adapters.moves.following import Following
from acclimate.adapters.objectives import Objective
from acclimate.adapters.requests import Reply, Request
from acclimate.adapters.selection import Everything, Selection
from acclimate.adapters.source import Source


@dataclass(frozen=True)
class Descent:
    """TENT, ETA and EATA are this with different parts.

    Attributes:
        objective: the loss.
        following: how theta follows its gradient.
        selection: which samples the loss counts, and how much.
    """

    objective: Objective
    following: Following
    selection: Selection = field(default_factory=Everything)

    def template(self, source: Source) -> State:
        """What the filter and the optimiser remember."""
        return self.selection.template(source.classes) | self.following.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Sessions in which nothing was selected keep theta and the optimiser's state."""
        value = self.objective(seen.logits)
        chosen = self.selection.select(state, seen.logits, value.loss, seen.rows.group)
        moved = yield from self.following.descend(source, state, seen, value, chosen.weight)
        return replace(moved, state=moved.state | chosen.state)
