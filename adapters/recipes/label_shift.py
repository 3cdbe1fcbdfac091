"""`label_shift`: answers follow the stream's class frequencies (Saerens et al. 2002); no parameter moves."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.priors import LabelShift
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class LabelShiftRecipe:
    """The running frequencies are worth `memory` samples, and a share `smoothing` of the source's stays in them.

    Neither has a published value: the method is for a whole unlabelled set at once.
    """

    batch_rows: int = 32
    prior: float = 64.0
    memory: float = 256.0
    smoothing: float = 0.1

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Outputs only, on top of the statistics of `norm`."""
        stage = LabelShift(self.memory, self.smoothing)
        return Recipe("label_shift", self.batch_rows, Blend(self.prior), outputs=stage, guards=guards)
