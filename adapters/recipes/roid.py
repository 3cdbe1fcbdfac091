"""`roid`: diverse and certain samples, consistency, averaging, prior correction (Marsden et al. 2024, "ROID")."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import DiverseAndCertain
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.priors import BatchPrior
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration import SourceAverage
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class RoidRecipe:
    """Averaging 0.99, temperature 1/3, momentum 0.9 (paper); Adam at 1e-3 (public CIFAR-10 settings)."""

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3
    averaging: float = 0.99
    temperature: float = 1 / 3
    momentum: float = 0.9
    seed: int = 0
    through_statistics: bool = False

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Weighted likelihood ratio with consistency."""
        move = DiverseAndCertain(
            Adam(self.lr),
            SourceAverage(self.averaging),
            self.temperature,
            self.momentum,
            self.through_statistics,
            self.seed,
        )
        return Recipe("roid", self.batch_rows, Blend(self.prior), move, BatchPrior(), guards)
