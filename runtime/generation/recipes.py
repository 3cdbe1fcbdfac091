"""Placeholder."""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.adapters.errors import RecipeError

TABLE = {"tlm": {"lr": 0.001}, "supervised": {"lr": 0.001}}


def values(recipe: str, overrides: Mapping[str, float]) -> dict[str, float]:
    if recipe not in TABLE:
        raise RecipeError(f"recipe: {recipe!r} is unknown; use one of {sorted(TABLE)}")
    return TABLE[recipe] | dict(overrides)
