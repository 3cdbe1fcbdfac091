"""`source`: the frozen model. What every other recipe is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.source import Source


@dataclass(frozen=True)
class SourceRecipe:
    """Never learns; has no parameters."""

    def build(self, source: Source, guards: Guards) -> Recipe:
        """The recipe that gathers nothing."""
        return Recipe(name="source", batch_rows=0)
