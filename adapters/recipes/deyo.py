"""`deyo`: entropy of sure predictions that depend on the object's structure (Lee et al. 2024, "DeYO", algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Following, StructureAware
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class DeyoRecipe:
    """Margins 0.5 and 0.4 ln C, PLPD 0.2 and 4 patches (paper); Adam at 1e-3 as in public CIFAR-10 settings."""

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3
    margin_ratio: float = 0.5
    reference_ratio: float = 0.4
    drop: float = 0.2
    patches: int = 4
    seed: int = 0
    through_statistics: bool = False

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Two filters, two weights."""
        scale = math.log(source.classes)
        following = Following(Adam(self.lr), through_statistics=self.through_statistics)
        move = StructureAware(
            following, self.margin_ratio * scale, self.reference_ratio * scale, self.drop, self.patches, self.seed
        )
        return Recipe("deyo", self.batch_rows, Blend(self.prior), move, guards=guards)
