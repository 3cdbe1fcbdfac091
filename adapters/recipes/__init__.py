"""Recipes by name. To add one: a file beside these with a frozen dataclass of typed defaults, and one row here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

from acclimate.adapters.errors import RecipeError
from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes.auto import AutoRecipe
from acclimate.adapters.recipes.base import Recipe, template
from acclimate.adapters.recipes.cafa import CafaRecipe
from acclimate.adapters.recipes.cotta import CottaRecipe
from acclimate.adapters.recipes.deyo import DeyoRecipe
from acclimate.adapters.recipes.eata import EataRecipe
from acclimate.adapters.recipes.eta import EtaRecipe
from acclimate.adapters.recipes.foa import FoaRecipe
from acclimate.adapters.recipes.label_shift import LabelShiftRecipe
from acclimate.adapters.recipes.lame import LameRecipe
from acclimate.adapters.recipes.memo import MemoRecipe
from acclimate.adapters.recipes.norm import NormRecipe
from acclimate.adapters.recipes.norm_alpha import NormAlphaRecipe
from acclimate.adapters.recipes.norm_ema import NormEmaRecipe
from acclimate.adapters.recipes.ostta import OsttaRecipe
from acclimate.adapters.recipes.petal import PetalRecipe
from acclimate.adapters.recipes.rdumb import RdumbRecipe
from acclimate.adapters.recipes.restored import applicable, restored
from acclimate.adapters.recipes.roid import RoidRecipe
from acclimate.adapters.recipes.rotta import RottaRecipe
from acclimate.adapters.recipes.sar import SarRecipe
from acclimate.adapters.recipes.source import SourceRecipe
from acclimate.adapters.recipes.supervised import SupervisedRecipe
from acclimate.adapters.recipes.t3a import T3aRecipe
from acclimate.adapters.recipes.tempo import TempoRecipe
from acclimate.adapters.recipes.tent import TentRecipe
from acclimate.adapters.recipes.zoa import ZoaRecipe
from acclimate.adapters.restoration.policy import PREFIX, Policy
from acclimate.adapters.source import Source
from acclimate.adapters.watch import Watch


class RecipeParameters(Protocol):
    """A frozen dataclass of a recipe's parameters that knows how to compose it."""

    def build(self, source: Source, guards: Guards) -> Recipe:
        """The recipe for a model."""


RECIPES: dict[str, type[Any]] = {
    "auto": AutoRecipe,
    "source": SourceRecipe,
    "norm": NormRecipe,
    "norm_alpha": NormAlphaRecipe,
    "norm_ema": NormEmaRecipe,
    "tent": TentRecipe,
    "eta": EtaRecipe,
    "eata": EataRecipe,
    "sar": SarRecipe,
    "rdumb": RdumbRecipe,
    "deyo": DeyoRecipe,
    "roid": RoidRecipe,
    "cotta": CottaRecipe,
    "petal": PetalRecipe,
    "rotta": RottaRecipe,
    "ostta": OsttaRecipe,
    "memo": MemoRecipe,
    "lame": LameRecipe,
    "label_shift": LabelShiftRecipe,
    "t3a": T3aRecipe,
    "cafa": CafaRecipe,
    "foa": FoaRecipe,
    "zoa": ZoaRecipe,
    "supervised": SupervisedRecipe,
    "tempo": TempoRecipe,
}

# Bounds hold for every recipe that has a parameter of this name: (lowest, highest).
BOUNDS: dict[str, tuple[float, float]] = {
    "batch_rows": (2, 1024),
    "prior": (0.0, 1e6),
    "lr": (0.0, 1.0),
    "alpha": (0.0, 1.0),
    "momentum": (0.0, 1.0),
    "margin_ratio": (0.0, 1.0),
    "reference_ratio": (0.0, 1.0),
    "drop": (-1.0, 1.0),
    "patches": (2, 64),
    "averaging": (0.0, 1.0),
    "temperature": (0.001, 1000.0),
    "seed": (0, 2**53),
    "inertia": (0.0, 1.0),
    "confidence": (0.0, 1.0),
    "views": (1, 256),
    "restore": (0.0, 1.0),
    "capacity": (1, 1024),
    "pace": (0.0, 1.0),
    "timeliness": (0.0, 1e3),
    "uncertainty": (0.0, 1e3),
    "neighbours": (1, 1024),
    "kernel": (0, 1),
    "calibrate_every": (1, 1e9),
    "feedback": (0.0, 1e3),
    "boldness": (0.0, 1e3),
    "smoothing": (0.0, 1.0),
    "dimensions": (1, 1024),
    "population": (4, 1024),
    "radius": (0.0, 10.0),
    "size": (1e-6, 1.0),
    "alignment": (0.0, 1e6),
    "decay": (0.0, 1e3),
    "epsilon": (0.0, 1.0),
    "beta": (0.0, 1e6),
    "rho": (0.0, 1.0),
    "supports": (1, 1024),
    "ridge": (1e-6, 1.0),
    "floor": (0.0, 10.0),
    "reset_every": (1, 1e9),
    "memory": (1.0, 1e9),
    "surprise": (1.0, 1e6),
    "patience": (0.0, 1.0),
    "eager": (0.0, 1e9),
    "growth": (0.0, 1e3),
    "longest": (0.0, 1e9),
    "every": (0.0, 1e9),
    "look": (2, 1024),
    "alarm": (0.0, 1e6),
    "through_statistics": (0, 1),
    "restoration.pull": (0.0, 1e6),
    "restoration.stochastic": (0.0, 1.0),
    "restoration.masked": (0.0, 1.0),
    "restoration.radius": (0.0, 10.0),
    "restoration.every": (0, 1e9),
    "restoration.on_drift": (0, 1),
    "restoration.on_canary": (0, 1),
    "restoration.on_collapse": (0, 1),
    "restoration.rollbacks": (0, 1e9),
    "restoration.ring": (0, 64),
    "restoration.ring_every": (1, 1e9),
}


def parameters(name: str, overrides: Mapping[str, float]) -> RecipeParameters:
    """The parameters of a recipe, defaults overridden.

    Raises:
        RecipeError: unknown recipe, unknown parameter, or a value that is not a number within its bounds.
    """
    if name not in RECIPES:
        _unknown(name)
    built: RecipeParameters = RECIPES[name](**_typed(name, _own(name), overrides))
    return built


def build(
    name: str, overrides: Mapping[str, float], source: Source, guards: Guards, watch: Watch | None = None
) -> Recipe:
    """A recipe for a model, and what brings its sessions back; see `parameters` for what is refused.

    Args:
        name: of the recipe.
        overrides: of its parameters and, as `restoration.*`, of `Policy`'s.
        source: the model.
        guards: what its steps must pass.
        watch: what tells drift; None: the defaults.
    """
    own = {key: value for key, value in overrides.items() if not key.startswith(PREFIX)}
    recipe = parameters(name, own).build(source, guards)
    if watch is not None:
        recipe = dataclasses.replace(recipe, watch=watch)
    return restored(recipe, policy(name, overrides))


def policy(name: str, overrides: Mapping[str, float]) -> Policy:
    """What brings a recipe's sessions back: the `restoration.*` among the overrides, else off.

    Raises:
        RecipeError: the recipe is unknown, has no such parameter, or a value is not a number within its bounds.
    """
    chosen = {key: value for key, value in overrides.items() if key.startswith(PREFIX)}
    typed = _typed(name, restoration_of(name), chosen)
    return Policy(**{key.removeprefix(PREFIX): value for key, value in typed.items()})  # type: ignore[arg-type]


def values(name: str, overrides: Mapping[str, float]) -> dict[str, float]:
    """Every parameter of a recipe, and of what brings its sessions back, with its effective value, for showing."""
    own = {key: value for key, value in overrides.items() if not key.startswith(PREFIX)}
    chosen, back = parameters(name, own), policy(name, overrides)
    shown: dict[str, float] = {field: getattr(chosen, field) for field in _own(name)}
    return shown | {key: getattr(back, key.removeprefix(PREFIX)) for key in restoration_of(name)}


def restoration_of(name: str) -> dict[str, float]:
    """The defaults of the `restoration.*` parameters that a recipe takes: `recipes/restored.py` says which."""
    if name not in RECIPES:
        _unknown(name)
    return applicable(name)


def _own(name: str) -> dict[str, float]:
    """The defaults of a recipe's own parameters."""
    return {field.name: field.default for field in dataclasses.fields(RECIPES[name])}  # type: ignore[misc]


def _unknown(name: str) -> NoReturn:
    raise RecipeError(f"recipe: {name!r} is unknown; use one of {sorted(RECIPES)}")


def _typed(name: str, defaults: Mapping[str, float], overrides: Mapping[str, float]) -> dict[str, float | int]:
    """The overrides in the types of the defaults."""
    typed: dict[str, float | int] = {}
    for key, value in overrides.items():
        if key not in defaults:
            raise RecipeError(f"recipe {name!r}: parameter {key!r} is unknown; it has {sorted(defaults)}")
        low, high = BOUNDS[key]
        if not math.isfinite(value) or not low <= value <= high:
            raise RecipeError(f"recipe {name!r}: {key} is {value}; it must lie in [{low:g}, {high:g}]")
        default = defaults[key]
        if not isinstance(default, float) and value != int(value):
            raise RecipeError(f"recipe {name!r}: {key} is {value}; it must be a whole number")
        typed[key] = value if isinstance(default, float) else bool(value) if isinstance(default, bool) else int(value)
    return typed


__all__ = [
    "BOUNDS",
    "RECIPES",
    "Recipe",
    "RecipeParameters",
    "build",
    "parameters",
    "policy",
    "restoration_of",
    "template",
    "values",
]
