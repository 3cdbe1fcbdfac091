"""`memo`: each sample's augmented views are made to agree before it is answered (Zhang et al. 2022, "MEMO").

For synchronous use: the answers are the step's. A daemon that answers first serves the source with moved statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import AgreeingViews
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class MemoRecipe:
    """32 views and plain descent at 0.005, as in the paper for CIFAR-10, on the adaptable parameters only."""

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 0.005
    views: int = 32
    seed: int = 0

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Parameters are put back after every sample."""
        move = AgreeingViews(self.lr, self.views, self.seed)
        return Recipe("memo", self.batch_rows, Blend(self.prior), move, guards=guards, answers_late=True)
