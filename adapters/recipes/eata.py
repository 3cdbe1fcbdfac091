"""`eata`: entropy of reliable, non-redundant predictions, held near the source by a Fisher-weighted pull.

Niu et al. 2022, "Efficient Test-Time Model Adaptation without Forgetting", eqs. 2-9. Without labels, with
fewer backward passes than `tent`, and without forgetting: the default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Descent, Following
from acclimate.adapters.objectives import entropy_loss
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration import FisherPull
from acclimate.adapters.selection import ReliableAndNew
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class EataRecipe:
    """Defaults: margin 0.4 ln C (paper), epsilon 0.4 and beta 1 (public CIFAR-10 settings), Adam at 1e-3.

    `margin_ratio` multiplies ln C, so that the margin fits any number of classes; a margin in nats tuned for
    1000 classes would let everything through with 10.
    """

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3
    margin_ratio: float = 0.4
    epsilon: float = 0.4
    beta: float = 1.0
    through_statistics: bool = False

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Selective entropy with the Fisher pull."""
        return Recipe(
            name="eata",
            batch_rows=self.batch_rows,
            statistics=Blend(self.prior),
            move=Descent(
                entropy_loss,
                Following(Adam(self.lr), FisherPull(self.beta), self.through_statistics),
                ReliableAndNew(self.margin_ratio * math.log(source.classes), self.epsilon),
            ),
            guards=guards,
        )
