"""`rdumb`: `eta`, and back to the source every so many steps (Press et al. 2023, "RDumb")."""

from __future__ import annotations

from dataclasses import dataclass, replace

from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.recipes.eta import EtaRecipe
from acclimate.adapters.restoration import PeriodicReset
from acclimate.adapters.source import Source


@dataclass(frozen=True)
class RdumbRecipe(EtaRecipe):
    """The parameters of `eta`, and `reset_every` steps (1000 in the paper)."""

    reset_every: int = 1000

    def build(self, source: Source, guards: Guards) -> Recipe:
        """`eta` with a periodic reset."""
        return replace(super().build(source, guards), name="rdumb", resets=(PeriodicReset(self.reset_every),))
