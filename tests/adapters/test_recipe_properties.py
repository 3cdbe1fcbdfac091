"""What holds for every recipe whatever the data: order of rows, slices of requests, neighbours, and what a NaN does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.adapters.fields import STATS, STEPS, STRIKES, THETA
from acclimate.adapters.guards import Guards
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.recipes import RECIPES, values
from acclimate.adapters.step import Batch, adaptation_step
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.scheduler.drive import Slicing, run_step
from tests.adapters.stepping import fresh, recipe, step, stream

ENGINE = reference_engine()
OPEN = Guards(trust_radius=100, collapse_ratio=0, canary_every=0)
LEARNING = sorted(set(RECIPES) - {"source"})
# A seed draws views by a sample's place in its session, so there the order matters, and may.
UNSEEDED = [name for name in LEARNING if "seed" not in values(name, {})]
SEEDS = st.integers(0, 2**16)


@pytest.mark.parametrize("name", UNSEEDED)
@settings(max_examples=5, deadline=None)
@given(seed=SEEDS)
def test_the_order_of_a_sessions_samples_does_not_matter(name: str, seed: int) -> None:
    chosen, inputs = recipe(name, ENGINE, OPEN), stream(seed, 24)
    order, group = np.random.default_rng(seed).permutation(24), np.zeros(24, np.intp)
    one = step(chosen, fresh(chosen, ENGINE, 1), inputs, group, ENGINE)
    other = step(chosen, fresh(chosen, ENGINE, 1), inputs[order], group, ENGINE)
    for key in (THETA, STATS):
        np.testing.assert_allclose(other.state[key], one.state[key], rtol=1e-4, atol=1e-5, err_msg=key)
    np.testing.assert_allclose(other.logits, one.logits[order], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", LEARNING)
@settings(max_examples=4, deadline=None)
@given(seed=SEEDS, rows=st.integers(1, 9))
def test_requests_may_be_answered_in_slices(name: str, seed: int, rows: int) -> None:
    chosen, inputs, group = recipe(name, ENGINE, OPEN), stream(seed, 24), np.repeat([0, 1, 2], 8)
    labels = ENGINE.frozen(inputs).argmax(axis=1)
    results = []
    for size in (rows, 10_000):
        machine = adaptation_step(chosen, ENGINE.source, fresh(chosen, ENGINE, 3), Batch(inputs, group, labels))
        results.append(run_step(machine, ENGINE, Slicing(size, lambda: None)))
    for key, value in results[1].state.items():
        np.testing.assert_allclose(results[0].state[key], value, rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", LEARNING)
@settings(max_examples=4, deadline=None)
@given(seed=SEEDS)
def test_a_crowd_of_uneven_sessions_is_as_each_alone(name: str, seed: int) -> None:
    chosen, draws = recipe(name, ENGINE, OPEN), np.random.default_rng(seed)
    count = draws.integers(2, 9, size=5)
    group = draws.permutation(np.repeat(np.arange(5), count))
    inputs = stream(seed, len(group))
    crowd = step(chosen, fresh(chosen, ENGINE, 5), inputs, group, ENGINE)
    for session in range(5):
        mine = group == session
        alone = step(chosen, fresh(chosen, ENGINE, 1), inputs[mine], np.zeros(mine.sum(), np.intp), ENGINE)
        for key in (THETA, STATS):
            np.testing.assert_allclose(crowd.state[key][session], alone.state[key][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(crowd.logits[mine], alone.logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", LEARNING)
def test_a_broken_sample_rolls_its_own_session_back(name: str) -> None:
    chosen, inputs, group = recipe(name, ENGINE, OPEN), stream(0, 32), np.repeat([0, 1], 16)
    inputs[3, 2] = np.nan
    state = fresh(chosen, ENGINE, 2)
    result = step(chosen, state, inputs, group, ENGINE, labels=np.zeros(32, np.int64))
    assert result.outcome[0] == Outcome.ROLLED_BACK_NONFINITE
    assert result.outcome[1] in (Outcome.APPLIED, Outcome.SKIPPED_NOT_SELECTED)
    for key in set(state) - {STRIKES, STEPS}:
        if not key.startswith(("drift.", "pace.")):
            np.testing.assert_array_equal(result.state[key][0], state[key][0], err_msg=key)
        assert np.isfinite(result.state[key]).all()
