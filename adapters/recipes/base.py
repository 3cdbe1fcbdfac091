"""A recipe: a named composition of the parts that a step is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.guards import Guards
from acclimate.adapters.objectives import Objective
from acclimate.adapters.optimisers import Optimiser
from acclimate.adapters.restoration import FisherPull
from acclimate.adapters.selection import Everything, Selection
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend

THETA = "theta"
STATS = "stats"
STRIKES = "guards.strikes"
STEPS = "steps"


@dataclass(frozen=True)
class Recipe:
    """What a session does with the samples it has gathered.

    Attributes:
        name: how clients ask for it.
        batch_rows: samples gathered before a step; 0 means the recipe never learns.
        statistics: how the running normalisation statistics follow the stream.
        objective: the loss, or None for recipes that only move statistics.
        selection: which samples the loss counts.
        optimiser: how theta moves; required with an objective.
        pull: regularisation toward the source, or None.
        guards: what a proposal must pass.
        through_statistics: whether gradients flow through the batch statistics; then every row takes part in
            the backward pass, selected or not. Otherwise only selected rows do.
    """

    name: str
    batch_rows: int
    statistics: Blend = field(default_factory=lambda: Blend(prior=0.0))
    objective: Objective | None = None
    selection: Selection = field(default_factory=Everything)
    optimiser: Optimiser | None = None
    pull: FisherPull | None = None
    guards: Guards = field(default_factory=Guards)
    through_statistics: bool = False

    @property
    def learns(self) -> bool:
        """Whether a session of this recipe ever changes."""
        return self.batch_rows > 0


def template(recipe: Recipe, source: Source) -> State:
    """One session's initial state: source parameters and statistics, and what the parts remember."""
    state: State = {
        THETA: source.theta.copy(),
        STATS: source.stats.copy(),
        STRIKES: np.zeros((), np.int64),
        STEPS: np.zeros((), np.int64),
    }
    if recipe.objective is not None:
        state |= recipe.selection.template(source.classes)
    if recipe.optimiser is not None:
        state |= recipe.optimiser.template(source.parameters.size)
    return state
