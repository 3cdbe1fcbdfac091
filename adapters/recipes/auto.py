"""`auto`: what an operator would choose who did not know the stream; see `adapters/moves/shrinking.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Descent, Following
from acclimate.adapters.moves.shrinking import Shrinking
from acclimate.adapters.objectives import entropy_loss
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration import FisherPull
from acclimate.adapters.selection import ReliableAndNew
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend

# The batch for which the papers give their learning rates; smaller ones step in proportion.
REFERENCE_ROWS = 64


@dataclass(frozen=True)
class AutoRecipe:
    """`eata`'s constants, with the learning rate scaled to the batch, and the blend's own.

    `settle` is long because shifts that resemble each other are one domain to it: resting after 2048 samples saved a
    tenth of the gradients on eight shifts of 2000 images each and cost 0.4 points of error (ResNet-20, CIFAR-10-C).
    """

    batch_rows: int = 32
    lr: float = 1e-3
    margin_ratio: float = 0.4
    epsilon: float = 0.4
    beta: float = 1.0
    memory: float = 512.0
    surprise: float = 2.0
    patience: float = 0.7
    settle: float = 16384.0
    rest: int = 4

    def build(self, source: Source, guards: Guards) -> Recipe:
        """The first pass normalises with the batch alone: deeper statistics must not depend on the blend."""
        lr = self.lr * min(1.0, self.batch_rows / REFERENCE_ROWS)
        descent = Descent(
            entropy_loss,
            Following(Adam(lr), FisherPull(self.beta), through_statistics=True),
            ReliableAndNew(self.margin_ratio * math.log(source.classes), self.epsilon),
        )
        return Recipe(
            name="auto",
            batch_rows=self.batch_rows,
            statistics=Blend(prior=0.0),
            move=Shrinking(
                descent,
                memory=self.memory,
                surprise=self.surprise,
                patience=self.patience,
                settle=self.settle,
                rest=self.rest,
            ),
            guards=guards,
        )
