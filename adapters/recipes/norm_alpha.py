"""`norm_alpha`: source statistics blended with the latest batch's at a fixed weight; no parameter moves.

You et al. 2021, "Test-time batch statistics calibration for covariate shift" (alpha-BN), eq. 3; Schneider et al. 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import SourceBlend


@dataclass(frozen=True)
class NormAlphaRecipe:
    """`alpha` 0.1 for the batch. It remembers nothing: what a session serves is the blend with its latest batch."""

    batch_rows: int = 32
    alpha: float = 0.1

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Statistics only."""
        return Recipe("norm_alpha", self.batch_rows, SourceBlend(self.alpha), guards=guards)
