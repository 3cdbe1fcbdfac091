"""`auto`: what an operator would choose who did not know the stream; see `adapters/moves/shrinking.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Descent, Following
from acclimate.adapters.moves.shrinking import Shrinking
from acclimate.adapters.objectives import entropy_loss
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.pacing import Pace
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration import FisherPull
from acclimate.adapters.selection import ReliableAndNew
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend

# The batch for which the papers give their learning rates; smaller ones step in proportion.
REFERENCE_ROWS = 64


@dataclass(frozen=True)
class AutoRecipe:
    """`eata`'s filter, with the blend's and the pace's own constants, found on CIFAR-10-C (`docs/benchmarks.md`).

    The learning rate is half as large again as `eata`'s and the pull toward the source four times as strong: fewer
    steps are taken, and what they learn has to last. `lr` is for batches of 64; smaller ones step in proportion.
    """

    batch_rows: int = 32
    lr: float = 1.5e-3
    margin_ratio: float = 0.4
    epsilon: float = 0.4
    beta: float = 4.0
    memory: float = 512.0
    surprise: float = 2.0
    patience: float = 0.7
    eager: float = 256.0
    growth: float = 0.5
    longest: float = 512.0
    every: float = 128.0
    alarm: float = 4.0
    look: int = 64

    def build(self, source: Source, guards: Guards) -> Recipe:
        """The first pass normalises with the batch alone: deeper statistics must not depend on the blend."""
        lr = self.lr * min(1.0, min(self.batch_rows, self.look) / REFERENCE_ROWS)
        descent = Descent(
            entropy_loss,
            Following(Adam(lr), FisherPull(self.beta), through_statistics=True),
            ReliableAndNew(self.margin_ratio * math.log(source.classes), self.epsilon),
        )
        pace = Pace(self.eager, self.growth, self.longest, self.every, self.alarm, self.look)
        return Recipe(
            name="auto",
            batch_rows=self.batch_rows,
            statistics=Blend(prior=0.0),
            move=Shrinking(
                descent,
                pace,
                memory=self.memory,
                surprise=self.surprise,
                patience=self.patience,
            ),
            guards=guards,
            pace=pace,
        )
