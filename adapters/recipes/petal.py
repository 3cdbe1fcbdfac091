"""`petal`: `cotta` with a prior toward the source and Fisher-masked restoration (Brahma and Rai 2023, "PETAL").

The paper's prior is a SWAG posterior that has to be trained with the source model. A bundle has no such posterior:
its place is taken by the Laplace approximation that the bundle's Fisher gives, so `beta` has no published value.
"""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import TaughtStudent
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration import FisherMasked, FisherPull
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class PetalRecipe:
    """CoTTA's settings, and the 0.03 least important parameters restored (CIFAR-10-C); `beta` 1 as in `eata`."""

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3
    inertia: float = 0.999
    confidence: float = 0.92
    views: int = 32
    restore: float = 0.03
    beta: float = 1.0
    seed: int = 0

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Teacher and student, tied to the source."""
        move = TaughtStudent(
            Adam(self.lr),
            FisherMasked(self.restore),
            FisherPull(self.beta),
            self.inertia,
            self.confidence,
            self.views,
            self.seed,
        )
        return Recipe("petal", self.batch_rows, Blend(self.prior), move, guards=guards)
