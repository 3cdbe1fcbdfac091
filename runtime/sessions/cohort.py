"""A cohort: the sessions of one model that run the same recipe, and so can take a step together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from acclimate.adapters import budget
from acclimate.adapters import recipes as recipe_table
from acclimate.adapters.bank import SessionBank
from acclimate.adapters.errors import RecipeError
from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes import Recipe
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.errors import InvalidArgument

CohortKey = tuple[str, str, tuple[tuple[str, float], ...]]


@dataclass(frozen=True)
class Cohort:
    """An engine, a recipe with its effective parameters, and the bank that holds the sessions' rows."""

    key: CohortKey
    engine: Engine
    recipe: Recipe
    parameters: Mapping[str, float]
    bank: SessionBank = field(repr=False)


def cohort_key(model: str, recipe: str, parameters: Mapping[str, float], batch_rows: int) -> CohortKey:
    """Equal for sessions that may share a step.

    `parameters` override the recipe's defaults, and `batch_rows` is the default of that one parameter here.

    Raises:
        InvalidArgument: the recipe or one of its parameters is unknown or out of range.
    """
    try:
        default = {"batch_rows": batch_rows} if "batch_rows" in recipe_table.values(recipe, {}) else {}
        effective = recipe_table.values(recipe, default | dict(parameters))
    except RecipeError as error:
        raise InvalidArgument("RECIPE_INVALID", str(error), recipe=recipe) from error
    if recipe in recipe_table.OFFLINE:
        raise InvalidArgument(
            "RECIPE_INVALID",
            f"recipe {recipe!r} cannot be served: {recipe_table.OFFLINE[recipe]}; GetServerInfo lists those that can",
            recipe=recipe,
        )
    return model, recipe, tuple(sorted(effective.items()))


def build_cohort(key: CohortKey, engine: Engine, guards: Guards) -> Cohort:
    """An empty cohort for a key made by `cohort_key`."""
    _, name, effective = key
    recipe = recipe_table.build(name, dict(effective), engine.source, guards)
    template = recipe_table.template(recipe, engine.source) | budget.template(0.0, 0.0, 0.0)
    return Cohort(key, engine, recipe, dict(effective), SessionBank(template))
