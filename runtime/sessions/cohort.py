"""A cohort: the sessions of one model that run the same recipe, and so can take a step together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from acclimate.adapters import budget
from acclimate.adapters.bank import SessionBank
from acclimate.adapters.errors import RecipeError
from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes import Recipe
from acclimate.adapters.watch import Watch
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.generation.model import Model
from acclimate.runtime.sessions import recipes as recipe_table

CohortKey = tuple[str, str, tuple[tuple[str, float], ...]]


@dataclass(frozen=True)
class Cohort:
    """An engine, a recipe with its effective parameters, and the bank that holds the sessions' rows."""

    key: CohortKey
    engine: Model
    recipe: Recipe
    parameters: Mapping[str, float]
    bank: SessionBank = field(repr=False)


def cohort_key(
    model: str, recipe: str, parameters: Mapping[str, float], defaults: Mapping[str, float], writes: bool = False
) -> CohortKey:
    """Equal for sessions that may share a step; `writes` says that the model writes texts.

    `parameters` override `defaults`, and those the recipe's own, where the recipe has a parameter of that name.

    Raises:
        InvalidArgument: the recipe or one of its parameters is unknown or out of range.
    """
    try:
        return model, recipe, _effective(recipe, tuple(parameters.items()), tuple(defaults.items()), writes)
    except RecipeError as error:
        raise InvalidArgument("RECIPE_INVALID", str(error), recipe=recipe) from error


# Most sessions are opened with the same few sets, and checking one takes as long as the rest of opening a session.
@lru_cache(maxsize=64, typed=True)
def _effective(
    recipe: str, parameters: tuple[tuple[str, float], ...], defaults: tuple[tuple[str, float], ...], writes: bool
) -> tuple[tuple[str, float], ...]:
    """Every parameter of a recipe with its value, by name."""
    taken = recipe_table.values(recipe, {}, writes)
    configured = {name: value for name, value in defaults if name in taken}
    return tuple(sorted(recipe_table.values(recipe, configured | dict(parameters), writes).items()))


def build_cohort(key: CohortKey, engine: Model, guards: Guards, watch: Watch | None = None) -> Cohort:
    """An empty cohort for a key made by `cohort_key`.

    Raises:
        InvalidArgument: the recipe needs what this model's bundle does not hold.
    """
    _, name, effective = key
    try:
        recipe, template = recipe_table.composed(name, dict(effective), engine, guards, watch)
    except RecipeError as error:
        raise InvalidArgument("RECIPE_INVALID", str(error), recipe=name) from error
    return Cohort(key, engine, recipe, dict(effective), SessionBank(template | budget.template(0.0, 0.0, 0.0)))
