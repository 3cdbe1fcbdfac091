"""Where each recipe and each objective is held to a plain implementation; a new one fails here until it is.

What holds for every recipe whatever the data (order of rows, slices, neighbours, NaN) is asked of the whole table of
recipes in `test_recipe_properties.py`, `test_step.py` and `contracts/test_recipes.py`; whether splitting a batch is
averaging is said and tested below.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.adapters import objectives
from acclimate.adapters.objectives import OBJECTIVES, Value
from acclimate.adapters.objectives.agreement import PairValue
from acclimate.adapters.recipes import RECIPES
from acclimate.adapters.recipes.restored import DESCENDING
from acclimate.runtime.engines.reference import reference_engine
from tests.adapters.plain import OPEN
from tests.adapters.stepping import first_move, recipe, stream

FIRST, OTHER = "test_recipes_against_torch", "test_other_recipes_against_torch"
VIEWS, FEATURES = "test_view_recipes_against_torch", "test_feature_recipes"
REMAINING = "test_remaining_recipes_against_torch"

# Recipe -> the test that plays it beside torch autograd (or plain arithmetic, where nothing is differentiated).
PLAIN: dict[str, tuple[str, str]] = {
    "auto": (REMAINING, "test_auto_follows_torch"),
    "cafa": (FEATURES, "test_cafa_follows_torch"),
    "cotta": (VIEWS, "test_cotta_follows_torch"),
    "deyo": (VIEWS, "test_deyo_follows_torch"),
    "eata": (FIRST, "test_recipe_follows_torch"),
    "eta": (REMAINING, "test_eta_follows_torch"),
    "foa": (REMAINING, "test_foa_follows_the_tutorials_search"),
    "label_shift": (REMAINING, "test_label_shift_follows_torch"),
    "lame": (REMAINING, "test_lame_follows_torch"),
    "memo": (VIEWS, "test_memo_answers_each_sample_at_its_own_parameters_and_forgets_them"),
    "norm": (FIRST, "test_recipe_follows_torch"),
    "norm_alpha": (REMAINING, "test_norm_alpha_blends_the_source_with_the_latest_batch_alone"),
    "norm_ema": (REMAINING, "test_norm_ema_follows_torchs_running_statistics"),
    "ostta": (OTHER, "test_ostta_follows_torch"),
    "petal": (VIEWS, "test_petal_restores_the_least_important_and_pulls_the_rest"),
    "rdumb": (REMAINING, "test_rdumb_is_eta_that_begins_anew"),
    "roid": (VIEWS, "test_roid_follows_torch"),
    "rotta": (OTHER, "test_rotta_follows_torch"),
    "sar": (REMAINING, "test_sar_follows_torch"),
    "source": (REMAINING, "test_source_is_the_frozen_model_and_stays_so"),
    "supervised": (OTHER, "test_supervised_follows_torch_and_ignores_rows_without_a_label"),
    "t3a": (FEATURES, "test_t3a_follows_torch"),
    "tempo": (REMAINING, "test_tempo_with_feedback_follows_torch"),
    "tent": (FIRST, "test_recipe_follows_torch"),
    "zoa": (OTHER, "test_zoa_follows_its_formula"),
}

# Loss -> the test of its cotangent against finite differences.
COTANGENTS: dict[str, tuple[str, str]] = {
    "class_alignment": (FEATURES, "test_the_cotangent_of_alignment_is_its_gradient"),
    "cross_entropy": ("test_agreement", "test_cross_entropy"),
    "entropy_loss": ("test_numerics_and_objectives", "test_cotangent_is_the_gradient_of_the_loss"),
    "label_cross_entropy": ("test_agreement", "test_label_cross_entropy"),
    "likelihood_ratio_loss": ("test_numerics_and_objectives", "test_cotangent_is_the_gradient_of_the_loss"),
    "marginal_entropy": ("test_agreement", "test_marginal_entropy"),
    "symmetric_cross_entropy": ("test_agreement", "test_symmetric_cross_entropy_in_both_arguments"),
}

# Recipes whose loss is a mean over the samples, so that the gradient of a batch is the mean of those of its parts;
# the parameters leave normalisation and what looks at the batch as a whole out of it.
ADDITIVE: dict[str, dict[str, float]] = {
    "cafa": {},
    "eata": {},
    "eta": {},
    "ostta": {},
    "rdumb": {},
    "supervised": {},
    "tempo": {},
    "tent": {},
    "zoa": {"alignment": 0},
}
# Those that descend, and why theirs is not.
NOT_ADDITIVE: dict[str, str] = {
    "auto": "the batch normalises itself",
    "deyo": "a sample's shuffle depends on its place",
    "roid": "weights are scaled within the batch",
    "sar": "the gradient is taken where the batch's own has led",
}

ENGINE = reference_engine()


def named(module: str, function: str) -> Callable[..., object]:
    found: Callable[..., object] = getattr(importlib.import_module(f"tests.adapters.{module}"), function)
    return found


def test_every_recipe_and_no_other_is_in_the_table() -> None:
    assert set(PLAIN) == set(RECIPES)


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_a_recipe_is_played_where_the_table_says(name: str) -> None:
    module, function = PLAIN[name]
    test = named(module, function)
    cases = getattr(importlib.import_module(f"tests.adapters.{module}"), "CASES", {})
    assert f'"{name}"' in inspect.getsource(test) or (name in cases and "CASES" in inspect.getsource(test))


def losses() -> set[str]:
    """Public functions of the objectives' modules that return a loss with its cotangent."""
    found = set()
    for entry in pkgutil.iter_modules(objectives.__path__, f"{objectives.__name__}."):
        module = importlib.import_module(entry.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            returned = inspect.signature(function, eval_str=True).return_annotation
            if returned in (Value, PairValue) and not name.startswith("_") and function.__module__ == entry.name:
                found.add(name)
    return found


def test_every_cotangent_and_no_other_is_in_the_table() -> None:
    assert set(COTANGENTS) == losses()
    assert {function.__name__ for function in OBJECTIVES.values()} <= set(COTANGENTS)
    for name, (module, function) in COTANGENTS.items():
        source = inspect.getsource(named(module, function))
        assert name in source or "OBJECTIVES" in source, name


def test_of_every_recipe_that_descends_it_is_said_whether_splitting_is_averaging() -> None:
    assert set(ADDITIVE) | set(NOT_ADDITIVE) == DESCENDING
    assert not set(ADDITIVE) & set(NOT_ADDITIVE)


def first_gradient(name: str, inputs: np.ndarray) -> tuple[np.ndarray, int]:
    """What the first step of a session follows, and how many samples that is a mean of."""
    moved = first_move(recipe(name, ENGINE, OPEN, prior=1e6, **ADDITIVE[name]), ENGINE, inputs)
    assert moved is not None
    assert moved.gradient is not None
    return moved.gradient[0], int(moved.selected[0])


@pytest.mark.parametrize("name", sorted(ADDITIVE))
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**16), cut=st.integers(1, 23))
def test_the_gradient_of_a_batch_is_the_mean_of_those_of_its_parts(name: str, seed: int, cut: int) -> None:
    inputs = stream(seed, 24)
    whole, count = first_gradient(name, inputs)
    parts = [first_gradient(name, part) for part in (inputs[:cut], inputs[cut:])]
    assert sum(rows for _, rows in parts) == count
    total = sum(gradient * rows for gradient, rows in parts)
    np.testing.assert_allclose(whole * count, total, rtol=1e-3, atol=2e-3 * max(1.0, float(np.abs(total).max())))
