"""`rotta`: balanced memory, robust normalisation, slow teacher (Yuan, Xie and Li 2023, "RoTTA", algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.memory import BalancedMemory
from acclimate.adapters.moves import Remembering
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Held, Running


@dataclass(frozen=True)
class RottaRecipe:
    """Memory 64, an update every 64 samples, statistics 0.05, pace 0.001, both weights 1 (paper); Adam at 1e-3."""

    batch_rows: int = 64
    lr: float = 1e-3
    capacity: int = 64
    momentum: float = 0.05
    pace: float = 0.001
    timeliness: float = 1.0
    uncertainty: float = 1.0
    seed: int = 0

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Answers are normalised with the session's statistics alone; the memory moves them."""
        memory = BalancedMemory(self.capacity, self.timeliness, self.uncertainty)
        move = Remembering(Adam(self.lr), memory, Running(self.momentum), self.pace, self.seed)
        return Recipe("rotta", self.batch_rows, Held(), move, guards=guards)
