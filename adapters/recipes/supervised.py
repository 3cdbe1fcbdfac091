"""`supervised`: cross-entropy on the samples whose true class arrived as feedback; the others move statistics only."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Following, Labelled
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration import FisherPull
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class SupervisedRecipe:
    """Adam at 1e-3, and `eata`'s pull toward the source, so that a few labels do not cost what was known."""

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3
    beta: float = 1.0
    through_statistics: bool = False

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Feedback only."""
        move = Labelled(Following(Adam(self.lr), FisherPull(self.beta), self.through_statistics))
        return Recipe("supervised", self.batch_rows, Blend(self.prior), move, guards=guards, reads_labels=True)
