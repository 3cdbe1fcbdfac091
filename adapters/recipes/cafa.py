"""`cafa`: class-aware feature alignment (Jung et al. 2023, "CAFA: Class-aware feature alignment")."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.errors import RecipeError
from acclimate.adapters.features import Precision
from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Aligning, Following
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.prototypes import required
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class CafaRecipe:
    """Adam at 1e-3 on the norm affines, over all samples, with gradients through the batch statistics.

    All classes share one covariance, to whose variances a share `ridge` of their mean is added: the calibration
    samples of a class are too few for one of its own. Neither has a published value; nor has the learning rate.
    """

    batch_rows: int = 32
    prior: float = 64.0
    lr: float = 1e-3
    ridge: float = 0.01

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Features only.

        Raises:
            RecipeError: the bundle has no features, or no centres of its classes.
        """
        features = required(source, "cafa")
        if not features.by_class:
            raise RecipeError(
                "recipe 'cafa': the bundle has no centres of its classes; export with two samples of each at least, "
                "and at most 131072 numbers in all"
            )
        following = Following(Adam(self.lr), through_statistics=True)
        move = Aligning(following, features.centres, Precision.of(features, self.ridge))
        return Recipe("cafa", self.batch_rows, Blend(self.prior), move, guards=guards)
