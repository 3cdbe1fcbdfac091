"""`cotta`: a weight-averaged, augmentation-averaged teacher and stochastic restoration (Wang et al. 2022, "CoTTA")."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import TaughtStudent
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration import Stochastic
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class CottaRecipe:
    """The paper's CIFAR-10-C settings: inertia 0.999, confidence 0.92, 32 views, restore 0.01, Adam at 1e-3."""

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3
    inertia: float = 0.999
    confidence: float = 0.92
    views: int = 32
    restore: float = 0.01
    seed: int = 0

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Teacher and student."""
        move = TaughtStudent(
            Adam(self.lr),
            Stochastic(self.restore),
            inertia=self.inertia,
            confidence=self.confidence,
            views=self.views,
            seed=self.seed,
        )
        return Recipe("cotta", self.batch_rows, Blend(self.prior), move, guards=guards)
