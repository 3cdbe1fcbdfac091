"""`foa`: evolution of a few directions, forward passes only (Niu et al. 2024, "FOA"), carried to norm affines."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Evolving
from acclimate.adapters.optimisers.evolution import EvolutionStrategy
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.restoration import Refused
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend


@dataclass(frozen=True)
class FoaRecipe:
    """27 candidates, sigma 1, alignment 0.4 (paper); 16 directions of radius 0.02 (no published value).

    A session whose step fails the canaries begins its search anew, which the paper does not: on a stream of noise it
    would go on around a point that answers clean images worse (`tests/hostile/test_harm.py`).
    """

    batch_rows: int = 32
    prior: float = 64.0
    dimensions: int = 16
    population: int = 27
    radius: float = 0.02
    alignment: float = 0.4
    seed: int = 0

    def build(self, source: Source, guards: Guards) -> Recipe:
        """Forward passes only, one more than the population."""
        strategy = EvolutionStrategy(self.dimensions, self.population)
        move = Evolving(strategy, self.radius, self.alignment, self.seed)
        # A step that is refused takes the search with it, but not the mean that it had drifted to before.
        resets = (Refused(Outcome.ROLLED_BACK_CANARY),)
        return Recipe("foa", self.batch_rows, Blend(self.prior), move, guards=guards, resets=resets)
