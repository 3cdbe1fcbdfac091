"""What every recipe promises on every engine; recipes are found in their table, so a new one is held to it too."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from acclimate.adapters.guards import Guards
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.recipes import BOUNDS, RECIPES, build, template, values
from acclimate.adapters.step import Batch, adaptation_step
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.engines.onnx import OnnxEngine
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.scheduler.drive import Slicing, run_step
from tests.runtime.digits import picture
from tests.runtime.serving import drifted

LEARNING = [name for name in sorted(RECIPES) if build(name, {}, reference_engine().source, Guards()).learns]
WHOLE = Slicing(10_000, lambda: None)


# ONNX Runtime takes seconds over a recipe that augments or searches; those run with `make test-all`.
QUICK_ON_ONNX = {"norm", "tent", "eata"}
PAIRS = [(name, engine) for name in LEARNING for engine in ("reference", "onnx")]
CASES = [
    pytest.param(*pair, marks=[pytest.mark.slow] if pair[1] == "onnx" and pair[0] not in QUICK_ON_ONNX else [])
    for pair in PAIRS
]


@pytest.fixture
def subject(kind: str, request: pytest.FixtureRequest) -> tuple[Engine, np.ndarray]:
    """An engine, and drifted samples of two sessions for it."""
    if kind == "reference":
        return reference_engine(), drifted(0, 64)
    onnx: OnnxEngine = request.getfixturevalue("digits_engine")
    return onnx, picture(3, 64, "contrast")


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_parameters_are_frozen_documented_and_bounded(name: str) -> None:
    kind = RECIPES[name]
    assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}("), "say what the defaults are"
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().name = "other"
    for key, value in values(name, {}).items():
        low, high = BOUNDS[key]
        assert low <= value <= high, key


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_steps_on_drifted_samples_change_something_and_stay_near(
    name: str, kind: str, subject: tuple[Engine, np.ndarray]
) -> None:
    engine, samples = subject
    recipe = build(name, {}, engine.source, Guards())
    first = {key: np.stack([value, value]) for key, value in template(recipe, engine.source).items()}
    state, batch = first, Batch(samples, np.repeat(np.arange(2), 32))
    for _ in range(4):
        before = {key: value.copy() for key, value in state.items()}
        result = run_step(adaptation_step(recipe, engine.source, state, batch), engine, WHOLE)
        assert set(result.outcome.tolist()) <= {Outcome.APPLIED, Outcome.SKIPPED_NOT_SELECTED}
        assert (result.distance <= recipe.guards.trust_radius).all()
        for key, value in before.items():
            np.testing.assert_array_equal(state[key], value, err_msg=f"{key} was written")
            assert (result.state[key].dtype, result.state[key].shape) == (value.dtype, value.shape), key
        state = result.state
    assert any(not np.array_equal(state[key], first[key]) for key in ("theta", "stats"))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_slices_of_a_step_change_nothing(name: str, kind: str, subject: tuple[Engine, np.ndarray]) -> None:
    """The scheduler cuts requests whose rows are independent; the algorithm must not notice."""
    engine, samples = subject
    recipe = build(name, {}, engine.source, Guards(canary_every=1))
    state = {key: np.stack([value, value]) for key, value in template(recipe, engine.source).items()}
    batch = Batch(samples, np.repeat(np.arange(2), 32))
    whole = run_step(adaptation_step(recipe, engine.source, state, batch), engine, WHOLE)
    cut = run_step(adaptation_step(recipe, engine.source, state, batch), engine, Slicing(7, lambda: None))
    assert cut.outcome.tolist() == whole.outcome.tolist()
    for key in ("theta", "stats"):
        np.testing.assert_allclose(cut.state[key], whole.state[key], rtol=1e-5, atol=1e-6, err_msg=key)
