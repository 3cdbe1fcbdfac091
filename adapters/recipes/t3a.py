"""`t3a`: answers by prototypes of the stream's features (Iwasawa and Matsuo 2021, "T3A")."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.prototypes import Prototypes, required
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class T3aRecipe:
    """20 supports a class; the statistics move as in `norm`. Answers take the float pass, which has the features."""

    batch_rows: int = 32
    prior: float = 64.0
    supports: int = 20

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Outputs only.

        Raises:
            RecipeError: the bundle has no features.
        """
        required(source, "t3a")
        return Recipe("t3a", self.batch_rows, Blend(self.prior), outputs=Prototypes(self.supports), guards=guards)
