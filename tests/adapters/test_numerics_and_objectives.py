"""Objectives against finite differences; sums per session against a plain loop, NaN neighbours included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.numerics import entropy, group_mean, group_sum, log_softmax, softmax
from acclimate.adapters.objectives import OBJECTIVES


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@given(seed=st.integers(0, 2**16), classes=st.integers(2, 7))
def test_cotangent_is_the_gradient_of_the_loss(name: str, seed: int, classes: int) -> None:
    objective = OBJECTIVES[name]
    logits = np.random.default_rng(seed).normal(size=(3, classes)) * 3
    cotangent = objective(logits).cotangent
    step = 1e-5
    for c in range(classes):
        nudge = np.zeros_like(logits)
        nudge[:, c] = step
        slope = (objective(logits + nudge).loss - objective(logits - nudge).loss) / (2 * step)
        np.testing.assert_allclose(cotangent[:, c], slope, atol=1e-7)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_objective_treats_rows_independently_and_leaves_its_input_alone(name: str) -> None:
    logits = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    before = logits.copy()
    value = OBJECTIVES[name](logits)
    order = np.array([3, 1, 5, 0, 2, 4])
    shuffled = OBJECTIVES[name](logits[order])
    np.testing.assert_array_equal(shuffled.loss, value.loss[order])
    np.testing.assert_array_equal(shuffled.cotangent, value.cotangent[order])
    np.testing.assert_array_equal(logits, before)
    assert value.cotangent.dtype == value.loss.dtype == np.float32
    assert OBJECTIVES[name](logits[:0]).cotangent.shape == (0, 4)


def test_softmax_and_entropy_hold_for_extreme_logits() -> None:
    logits = np.array([[1e4, 0, -1e4], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(softmax(logits), [[1, 0, 0], [1 / 3] * 3], atol=1e-6)
    np.testing.assert_allclose(entropy(logits), [0, np.log(3)], atol=1e-6)
    assert np.isfinite(log_softmax(logits)).all()


@given(
    group=st.lists(st.integers(0, 4), max_size=12),
    seed=st.integers(0, 2**16),
)
def test_group_sum_equals_a_loop(group: list[int], seed: int) -> None:
    index = np.array(group, np.intp)
    values = np.random.default_rng(seed).normal(size=(len(group), 3)).astype(np.float32)
    expected = np.zeros((5, 3), np.float32)
    for row, owner in zip(values, index, strict=True):
        expected[owner] += row
    np.testing.assert_allclose(group_sum(values, index, 5), expected, atol=1e-5)
    counts = np.maximum(np.bincount(index, minlength=5), 1)[:, np.newaxis]
    np.testing.assert_allclose(group_mean(values, index, 5), expected / counts, atol=1e-5)


def test_a_neighbours_nan_does_not_reach_another_group() -> None:
    values = np.array([[1.0], [np.nan], [2.0]], np.float32)
    total = group_sum(values, np.array([0, 1, 0]), 2)
    assert total[0, 0] == 3
    assert np.isnan(total[1, 0])
