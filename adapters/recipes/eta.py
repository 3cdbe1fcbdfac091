"""`eta`: `eata` without the pull toward the source (Niu et al. 2022, eqs. 2-5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Descent, Following
from acclimate.adapters.objectives import entropy_loss
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.selection import ReliableAndNew
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class EtaRecipe:
    """The parameters of `eata`, less `beta`."""

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3
    margin_ratio: float = 0.4
    epsilon: float = 0.4
    through_statistics: bool = False

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Selective entropy."""
        selection = ReliableAndNew(self.margin_ratio * math.log(source.classes), self.epsilon)
        return Recipe(
            name="eta",
            batch_rows=self.batch_rows,
            statistics=Blend(self.prior),
            move=Descent(entropy_loss, Following(Adam(self.lr), None, self.through_statistics), selection),
            guards=guards,
        )
