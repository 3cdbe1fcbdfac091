"""Learning recipes by name. To add one: a file beside these, a frozen dataclass of typed defaults; a row here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol

from acclimate.adapters.errors import RecipeError
from acclimate.adapters.learning.lesson import Lesson
from acclimate.adapters.learning.recipes.majority import Majority
from acclimate.adapters.learning.recipes.source import Unlearning
from acclimate.adapters.learning.recipes.supervised import Supervised
from acclimate.adapters.learning.recipes.tlm import Tlm
from acclimate.adapters.learning.recipes.ttt import Ttt


class LanguageParameters(Protocol):
    """A frozen dataclass of a recipe's parameters that knows how to compose its lesson."""

    def build(self) -> Lesson:
        """The lesson."""


# A row of a `replay`-guarded variant is the same method with what holds it to the source switched on.
LANGUAGE_RECIPES: dict[str, LanguageParameters] = {
    "source": Unlearning(),
    "tlm": Tlm(),
    "tlm_replay": Tlm(replay=0.5, kl=0.5, pull=1e-3),
    "ttt": Ttt(),
    "ttt_replay": Ttt(replay=0.5, kl=0.5, pull=1e-3),
    "supervised": Supervised(),
    "supervised_replay": Supervised(replay=0.5, kl=0.5, pull=1e-3),
    "majority": Majority(),
}

# Bounds hold for every recipe that has a parameter of this name: (lowest, highest).
LANGUAGE_BOUNDS: dict[str, tuple[float, float]] = {
    "lr": (0.0, 1.0),
    "epochs": (1, 1000),
    "batch": (1, 1024),
    "decay": (0.0, 10.0),
    "warmup": (0.0, 1.0),
    "replay": (0.0, 16.0),
    "kl": (0.0, 1e3),
    "pull": (0.0, 1e6),
    "held_out": (0.0, 0.9),
    "folds": (0, 32),
    "margin": (-100.0, 100.0),
    "threshold": (0.0, 100.0),
    "scale": (0.0, 100.0),
    "orders": (1, 1024),
    "temperature": (1e-3, 1e3),
    "contrast": (0, 1),
    "samples": (2, 256),
    "max_tokens": (1, 65536),
    "forking": (0.0, 0.99),
    "low": (0.0, 100.0),
    "high": (0.0, 100.0),
    "band": (0.0, 1e3),
}


def language_parameters(name: str, overrides: Mapping[str, float]) -> LanguageParameters:
    """The parameters of a recipe, defaults overridden.

    Raises:
        RecipeError: unknown recipe, unknown parameter, or a value that is not a number within its bounds.
    """
    if name not in LANGUAGE_RECIPES:
        raise RecipeError(f"recipe: {name!r} is unknown; use one of {sorted(LANGUAGE_RECIPES)}")
    defaults = language_values(name)
    typed: dict[str, Any] = {}
    for key, value in overrides.items():
        if key not in defaults:
            raise RecipeError(f"recipe {name!r}: parameter {key!r} is unknown; it has {sorted(defaults)}")
        low, high = LANGUAGE_BOUNDS[key]
        if not math.isfinite(value) or not low <= value <= high:
            raise RecipeError(f"recipe {name!r}: {key} is {value}; it must lie in [{low:g}, {high:g}]")
        default = defaults[key]
        if not isinstance(default, float) and value != int(value):
            raise RecipeError(f"recipe {name!r}: {key} is {value}; it must be a whole number")
        typed[key] = float(value) if isinstance(default, float) else type(default)(int(value))
    chosen: LanguageParameters = dataclasses.replace(LANGUAGE_RECIPES[name], **typed)  # type: ignore[type-var]
    return chosen


def language_lesson(name: str, overrides: Mapping[str, float]) -> Lesson:
    """The lesson of a recipe under its own name; see `language_parameters` for what is refused."""
    return dataclasses.replace(language_parameters(name, overrides).build(), name=name)


def language_values(name: str, overrides: Mapping[str, float] | None = None) -> dict[str, float]:
    """Every parameter of a recipe with its effective value, for showing."""
    chosen = language_parameters(name, overrides) if overrides else LANGUAGE_RECIPES[name]
    return dataclasses.asdict(chosen)  # type: ignore[call-overload, no-any-return]


__all__ = [
    "LANGUAGE_BOUNDS",
    "LANGUAGE_RECIPES",
    "LanguageParameters",
    "language_lesson",
    "language_parameters",
    "language_values",
]
