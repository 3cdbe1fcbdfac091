"""Recipes by name. To add one: a file beside these with a frozen dataclass of typed defaults, and one row here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol

from acclimate.adapters.errors import RecipeError
from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes.auto import AutoRecipe
from acclimate.adapters.recipes.base import Recipe, template
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
from acclimate.adapters.recipes.roid import RoidRecipe
from acclimate.adapters.recipes.rotta import RottaRecipe
from acclimate.adapters.recipes.sar import SarRecipe
from acclimate.adapters.recipes.source import SourceRecipe
from acclimate.adapters.recipes.supervised import SupervisedRecipe
from acclimate.adapters.recipes.tempo import TempoRecipe
from acclimate.adapters.recipes.tent import TentRecipe
from acclimate.adapters.recipes.zoa import ZoaRecipe
from acclimate.adapters.source import Source


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
    "foa": FoaRecipe,
    "zoa": ZoaRecipe,
    "supervised": SupervisedRecipe,
    "tempo": TempoRecipe,
}

# Recipes that a daemon cannot serve yet, and why; benchmarks and `adaptation_step` run them.
OFFLINE: dict[str, str] = {
    "memo": "it answers with parameters that are adapted to one sample and then thrown away",
    "supervised": "it learns from labels, which feedback does not bring to a session's step yet",
    "tempo": "without the labels that feedback does not bring to a step yet, it is eata",
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
    "calibrate_every": (1, 1e9),
    "feedback": (0.0, 1e3),
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
    "floor": (0.0, 10.0),
    "reset_every": (1, 1e9),
    "memory": (1.0, 1e9),
    "surprise": (1.0, 1e6),
    "patience": (0.0, 1.0),
    "through_statistics": (0, 1),
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
        default = fields[key].default
        if not isinstance(default, float) and value != int(value):
            raise RecipeError(f"recipe {name!r}: {key} is {value}; it must be a whole number")
        values[key] = value if isinstance(default, float) else bool(value) if isinstance(default, bool) else int(value)
    built: RecipeParameters = RECIPES[name](**values)
    return built


def build(name: str, overrides: Mapping[str, float], source: Source, guards: Guards) -> Recipe:
    """A recipe for a model; see `parameters` for what is refused."""
    return parameters(name, overrides).build(source, guards)


def values(name: str, overrides: Mapping[str, float]) -> dict[str, float]:
    """Every parameter of a recipe with its effective value, for showing."""
    chosen = parameters(name, overrides)
    return {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}  # type: ignore[arg-type]


__all__ = ["BOUNDS", "OFFLINE", "RECIPES", "Recipe", "RecipeParameters", "build", "parameters", "template", "values"]
