"""`sar`: sharpness-aware minimisation of reliable entropy, with recovery (Niu et al. 2023, algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import SharpnessAware
from acclimate.adapters.moves.sharpness import RECOVER
from acclimate.adapters.objectives import entropy_loss
from acclimate.adapters.optimisers import Sgd
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration import Flagged
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class SarRecipe:
    """SGD at 1e-3 with momentum 0.9, rho 0.05, margin 0.4 ln C; `floor` in nats as in the paper (0.2).

    The floor was set for 1000 classes; a confident model of ten can sit below it and be restored again and again.
    """

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3
    margin_ratio: float = 0.4
    rho: float = 0.05
    floor: float = 0.2

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Two gradients a step."""
        margin = self.margin_ratio * math.log(source.classes)
        return Recipe(
            name="sar",
            batch_rows=self.batch_rows,
            statistics=Blend(self.prior),
            move=SharpnessAware(entropy_loss, Sgd(self.lr), margin, self.rho, self.floor),
            guards=guards,
            resets=(Flagged(RECOVER),),
        )
