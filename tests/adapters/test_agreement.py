"""Losses between two predictions, against finite differences in double precision."""

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.numerics import entropy, softmax
from acclimate.adapters.objectives.agreement import (
    cross_entropy,
    label_cross_entropy,
    marginal_entropy,
    symmetric_cross_entropy,
)

SEEDS = st.integers(0, 2**16)


def logits(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) * 3


def slope(loss: Callable[[np.ndarray], np.ndarray], at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Gradient of the summed loss by central differences, element by element."""
    result = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        nudge = np.zeros_like(at)
        nudge[index] = step
        result[index] = (loss(at + nudge).sum() - loss(at - nudge).sum()) / (2 * step)
    return result


@given(seed=SEEDS)
def test_cross_entropy(seed: int) -> None:
    z, target = logits(seed, 3, 4), softmax(logits(seed + 1, 3, 4))
    np.testing.assert_allclose(
        cross_entropy(z, target).cotangent, slope(lambda v: cross_entropy(v, target).loss, z), atol=1e-7
    )


@given(seed=SEEDS)
def test_symmetric_cross_entropy_in_both_arguments(seed: int) -> None:
    a, b = logits(seed, 3, 4), logits(seed + 1, 3, 4)
    value = symmetric_cross_entropy(a, b)
    np.testing.assert_allclose(value.first, slope(lambda v: symmetric_cross_entropy(v, b).loss, a), atol=1e-6)
    np.testing.assert_allclose(value.second, slope(lambda v: symmetric_cross_entropy(a, v).loss, b), atol=1e-6)
    other = symmetric_cross_entropy(b, a)
    np.testing.assert_allclose(other.loss, value.loss)
    np.testing.assert_allclose(other.first, value.second)


@given(seed=SEEDS)
def test_marginal_entropy(seed: int) -> None:
    z = logits(seed, 2, 3, 4)
    value = marginal_entropy(z)
    np.testing.assert_allclose(value.cotangent, slope(lambda v: marginal_entropy(v).loss, z), atol=1e-7)
    np.testing.assert_allclose(value.loss, entropy(np.log(softmax(z).mean(axis=1))))


def test_rows_without_a_label_have_neither_loss_nor_gradient() -> None:
    z = logits(0, 3, 4)
    value = label_cross_entropy(z, np.array([2, -1, 0]))
    np.testing.assert_allclose(value.loss, [-np.log(softmax(z)[0, 2]), 0, -np.log(softmax(z)[2, 0])])
    np.testing.assert_allclose(
        value.cotangent, [softmax(z)[0] - np.eye(4)[2], np.zeros(4), softmax(z)[2] - np.eye(4)[0]]
    )


@given(seed=SEEDS)
def test_label_cross_entropy(seed: int) -> None:
    z, labels = logits(seed, 4, 4), np.array([2, -1, 0, 3])
    np.testing.assert_allclose(
        label_cross_entropy(z, labels).cotangent,
        slope(lambda v: np.where(labels >= 0, label_cross_entropy(v, labels).loss, 0), z),
        atol=1e-7,
    )
