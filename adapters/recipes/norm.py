"""`norm`: follow the stream's normalisation statistics, move no parameter.

Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift adaptation", eq. 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class NormRecipe:
    """Parameters: samples per step, and how many samples the statistics so far are worth against them."""

    batch_rows: int = 32
    prior: float = 64.0

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Statistics only."""
        return Recipe(name="norm", batch_rows=self.batch_rows, statistics=Blend(self.prior), guards=guards)
