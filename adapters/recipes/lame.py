"""`lame`: neighbouring predictions agree (Boudiaf et al. 2022, "Parameter-free online test-time adaptation")."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.laplacian import Laplacian
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class LameRecipe:
    """5 neighbours (paper); the statistics move as in `norm`, and the answers of each batch are corrected.

    `kernel` chooses the paper's radial affinity, which public CIFAR-10 settings use, over its nearest neighbours.
    """

    batch_rows: int = 32
    prior: float = 64.0
    neighbours: int = 5
    kernel: bool = False

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Outputs only."""
        return Recipe(
            "lame", self.batch_rows, Blend(self.prior), outputs=Laplacian(self.neighbours, self.kernel), guards=guards
        )
