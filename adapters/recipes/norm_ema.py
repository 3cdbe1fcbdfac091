"""`norm_ema`: batch normalisation's own running statistics, kept running at test time; no parameter moves."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import TrainMode


@dataclass(frozen=True)
class NormEmaRecipe:
    """`momentum` 0.1, torch's default for batch normalisation; each batch counts the same, whatever its size.

    The batch is answered with the statistics that it has just moved, in a second pass, which the daemon leaves out: it
    has answered already.
    """

    batch_rows: int = 32
    momentum: float = 0.1

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Statistics only."""
        return Recipe("norm_ema", self.batch_rows, TrainMode(self.momentum), guards=guards)
