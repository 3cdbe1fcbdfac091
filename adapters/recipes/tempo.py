"""`tempo`: `eata` with a critic that is recalibrated on feedback (after TEMPO, arXiv 2604.19295); else `eata`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acclimate.adapters.critic import Critic
from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Critical, Following
from acclimate.adapters.objectives import entropy_loss
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration import FisherPull
from acclimate.adapters.selection import ReliableAndNew
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class TempoRecipe:
    """The parameters of `eata`; the critic is recalibrated every 8 steps on the latest 64 labels.

    While it has labels, steps are up to `boldness` times as long, the more labels come the longer, and gradients flow
    through the batch statistics whatever `through_statistics` says: with `eata`'s pace and fixed statistics few labels
    gained nothing (`docs/benchmarks.md`).
    """

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3
    margin_ratio: float = 0.4
    epsilon: float = 0.4
    beta: float = 1.0
    calibrate_every: int = 8
    capacity: int = 64
    feedback: float = 0.3
    boldness: float = 4.0
    through_statistics: bool = False

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Alternating calibration and learning."""
        margin = self.margin_ratio * math.log(source.classes)
        move = Critical(
            entropy_loss,
            Following(Adam(self.lr), FisherPull(self.beta), self.through_statistics),
            ReliableAndNew(margin, self.epsilon),
            Critic(margin, self.capacity),
            self.calibrate_every,
            self.feedback,
            self.boldness,
        )
        return Recipe("tempo", self.batch_rows, Blend(self.prior), move, guards=guards, reads_labels=True)
