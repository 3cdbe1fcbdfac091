"""`tent`: minimise the entropy of every prediction (Wang et al. 2021, "Tent", eq. 1 and algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Descent, Following
from acclimate.adapters.objectives import entropy_loss
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class TentRecipe:
    """Adam at 1e-3 on the norm affines, gradients through the batch statistics, as in the authors' code.

    `prior` = 0 normalises with the batch alone, the paper's setting; the default blends, because a session's
    batches are small.
    """

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Entropy over all samples."""
        return Recipe(
            name="tent",
            batch_rows=self.batch_rows,
            statistics=Blend(self.prior),
            move=Descent(entropy_loss, Following(Adam(self.lr), through_statistics=True)),
            guards=guards,
        )
