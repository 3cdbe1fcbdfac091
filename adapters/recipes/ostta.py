"""`ostta`: `eata` behind the open-set filter of Lee et al. 2023 ("wisdom of crowds", eq. 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import CrowdFiltered, Following
from acclimate.adapters.objectives import entropy_loss
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration import FisherPull
from acclimate.adapters.selection import ReliableAndNew
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class OsttaRecipe:
    """The parameters of `eata`; the filter has none. The paper puts it before any entropy loss."""

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3
    margin_ratio: float = 0.4
    epsilon: float = 0.4
    beta: float = 1.0
    through_statistics: bool = False

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Filtered, selective entropy with the Fisher pull."""
        following = Following(Adam(self.lr), FisherPull(self.beta), self.through_statistics)
        selection = ReliableAndNew(self.margin_ratio * math.log(source.classes), self.epsilon)
        move = CrowdFiltered(entropy_loss, following, selection)
        return Recipe("ostta", self.batch_rows, Blend(self.prior), move, guards=guards)
