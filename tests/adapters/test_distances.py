"""How far parameters have gone: plain norms, and low-rank updates by their products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.distances import theta_distance
from acclimate.adapters.layout import Layout
from acclimate.adapters.source import Source
from acclimate.runtime.engines.reference import reference_engine

RANK, INPUTS, OUTPUTS = 3, 7, 5
UPDATES = Layout.of(
    [
        ("norm.weight", "norm.scale", (4,)),
        ("conv.lora_A.weight", "lora.A", (RANK, INPUTS, 1, 1)),
        ("conv.lora_B.weight", "lora.B", (OUTPUTS, RANK, 1, 1)),
        ("head.bias", "bias", (2,)),
    ]
)


def source(theta: np.ndarray, layout: Layout = UPDATES) -> Source:
    return replace(reference_engine().source, parameters=layout, theta=theta.astype(np.float32))


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, UPDATES.size)).astype(np.float32)


def product(row: np.ndarray) -> np.ndarray:
    parts = UPDATES.unpack(row)
    return parts["conv.lora_B.weight"].reshape(OUTPUTS, RANK) @ parts["conv.lora_A.weight"].reshape(RANK, INPUTS)


@given(seed=st.integers(0, 10**6))
def test_a_low_rank_update_counts_by_its_product(seed: int) -> None:
    start, moved = rows(1, seed)[0], rows(3, seed + 1)
    expected = []
    for row in moved:
        old, new = UPDATES.unpack(start), UPDATES.unpack(row)
        plain = sum(np.sum((new[name] - old[name]) ** 2) for name in ("norm.weight", "head.bias"))
        gap = np.sum((product(row) - product(start)) ** 2) * RANK / np.sum(old["conv.lora_A.weight"] ** 2)
        expected.append(np.sqrt(plain + gap) / np.linalg.norm(start))
    np.testing.assert_allclose(theta_distance(moved, source(start)), expected, rtol=1e-4)


def test_a_alone_changes_nothing_while_b_is_zero() -> None:
    start = rows(1, 0)[0]
    start[UPDATES.columns("lora.B")] = 0
    moved = start.copy()
    moved[UPDATES.columns("lora.A")] *= -7
    assert theta_distance(moved[np.newaxis], source(start)) == [0]
    moved[UPDATES.columns("lora.B")] = 0.1
    assert theta_distance(moved[np.newaxis], source(start)) > 0


def test_without_updates_it_is_the_relative_euclidean_distance() -> None:
    plain = reference_engine().source
    theta = plain.theta + np.float32(0.1)
    expected = np.linalg.norm(theta[np.newaxis] - plain.theta, axis=1) / np.linalg.norm(plain.theta)
    np.testing.assert_array_equal(theta_distance(theta[np.newaxis], plain), expected)
