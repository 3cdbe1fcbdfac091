"""`zoa`: two forward passes and no backward one (Deng et al. 2025, "ZOA": zeroth-order adaptation).

The paper's bank of domain parameters and its shift detector are not part of this recipe; see `docs/recipes.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Perturbed
from acclimate.adapters.optimisers import Sgd
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class ZoaRecipe:
    """Perturbations of 0.01, SGD at 1e-4, alignment 1 (the paper's for a ResNet-50); decay 0.4 (for a ViT).

    Momentum 0.9 averages the noise of the one-sample estimate; the paper's value was not found.
    """

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-4
    momentum: float = 0.9
    size: float = 0.01
    alignment: float = 1.0
    decay: float = 0.4
    seed: int = 0

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Forward passes only."""
        move = Perturbed(Sgd(self.lr, self.momentum), self.size, self.alignment, self.decay, self.seed)
        return Recipe("zoa", self.batch_rows, Blend(self.prior), move, guards=guards)
