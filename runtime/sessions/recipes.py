"""Recipes of both kinds of models: those that step on a stream, and those that language models' lessons follow.

A language model's session has a recipe like any other, but no step on a stream: its lessons are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.adapters import recipes as stream
from acclimate.adapters.bank import State
from acclimate.adapters.guards import Guards
from acclimate.adapters.learning.recipes import language_parameters, language_values
from acclimate.adapters.recipes import Recipe
from acclimate.adapters.watch import Watch
from acclimate.runtime.generation.model import LanguageModel, Model


def values(recipe: str, overrides: Mapping[str, float], writes: bool) -> dict[str, float]:
    """Every parameter of a recipe with its effective value; `writes` says that it is a language model's.

    Raises:
        RecipeError: the recipe or a parameter is unknown, or a value out of range.
    """
    if not writes:
        return stream.values(recipe, overrides)
    language_parameters(recipe, overrides)
    return language_values(recipe, overrides)


def composed(
    recipe: str, effective: Mapping[str, float], model: Model, guards: Guards, watch: Watch | None
) -> tuple[Recipe, State]:
    """What sessions of a recipe do with a stream, and one session's initial state.

    Raises:
        RecipeError: the recipe needs what the model does not hold.
    """
    if isinstance(model, LanguageModel):
        still = Recipe(recipe, batch_rows=0, guards=guards, watch=None)
        return still, stream.template(still, model.source)
    built = stream.build(recipe, effective, model.source, guards, watch)
    return built, stream.template(built, model.source)
