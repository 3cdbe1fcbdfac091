"""Recipes by name. To add one: a file beside these with a frozen dataclass of typed defaults, and one row here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol

from acclimate.adapters.errors import RecipeError
from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes.base import Recipe, template
from acclimate.adapters.recipes.eata import EataRecipe
from acclimate.adapters.recipes.norm import NormRecipe
from acclimate.adapters.recipes.source import SourceRecipe
from acclimate.adapters.recipes.tent import TentRecipe
from acclimate.adapters.source import Source


class RecipeParameters(Protocol):
    """A frozen dataclass of a recipe's parameters that knows how to compose it."""

    def build(self, source: Source, guards: Guards) -> Recipe:
        """The recipe for a model."""


RECIPES: dict[str, type[Any]] = {
    "source": SourceRecipe,
    "norm": NormRecipe,
    "tent": TentRecipe,
    "eata": EataRecipe,
}

# Bounds hold for every recipe that has a parameter of this name: (lowest, highest).
BOUNDS: dict[str, tuple[float, float]] = {
    "batch_rows": (2, 1024),
    "prior": (0.0, 1e6),
    "lr": (0.0, 1.0),
    "margin_ratio": (0.0, 1.0),
    "epsilon": (0.0, 1.0),
    "beta": (0.0, 1e6),
}


def parameters(name: str, overrides: Mapping[str, float]) -> RecipeParameters:
    """The parameters of a recipe, defaults overridden.

    Raises:
        RecipeError: unknown recipe, unknown parameter, or a value that is not a number within its bounds.
    """
    if name not in RECIPES:
        raise RecipeError(f"recipe: {name!r} is unknown; use one of {sorted(RECIPES)}")
    fields = {field.name: field for field in dataclasses.fields(RECIPES[name])}
    values: dict[str, float | int] = {}
    for key, value in overrides.items():
        if key not in fields:
            raise RecipeError(f"recipe {name!r}: parameter {key!r} is unknown; it has {sorted(fields)}")
        low, high = BOUNDS[key]
        if not math.isfinite(value) or not low <= value <= high:
            raise RecipeError(f"recipe {name!r}: {key} is {value}; it must lie in [{low:g}, {high:g}]")
        values[key] = value
        if isinstance(fields[key].default, int):
            if value != int(value):
                raise RecipeError(f"recipe {name!r}: {key} is {value}; it must be a whole number")
            values[key] = int(value)
    built: RecipeParameters = RECIPES[name](**values)
    return built


def build(name: str, overrides: Mapping[str, float], source: Source, guards: Guards) -> Recipe:
    """A recipe for a model; see `parameters` for what is refused."""
    return parameters(name, overrides).build(source, guards)


def values(name: str, overrides: Mapping[str, float]) -> dict[str, float]:
    """Every parameter of a recipe with its effective value, for showing."""
    chosen = parameters(name, overrides)
    return {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}  # type: ignore[arg-type]


__all__ = ["BOUNDS", "RECIPES", "Recipe", "RecipeParameters", "build", "parameters", "template", "values"]
