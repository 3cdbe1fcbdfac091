"""Draws are a function of their keys: reproducible, independent of neighbours, and distributed as they say."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.randomness import keys, normal, rank, uniform


def test_splitmix64_gives_its_published_sequence() -> None:
    # The first outputs of SplitMix64 seeded with 1234567, as in the test vectors of its Java and C versions.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    bits = uniform(np.array([1234567], np.uint64), 3)[0]
    np.testing.assert_allclose(bits, [value / 2**64 for value in expected], atol=2**-23)


@given(seed=st.integers(0, 2**62), step=st.integers(0, 2**40))
def test_a_draw_depends_on_its_own_key_only(seed: int, step: int) -> None:
    alone = uniform(keys(seed, step, np.array([3])), 5)
    among = uniform(keys(seed, step, np.arange(6)), 9)
    np.testing.assert_array_equal(among[3, :5], alone[0])


def test_keys_differ_where_any_part_does() -> None:
    parts = np.arange(40)
    grid = np.concatenate([keys(a, b, parts) for a in range(8) for b in range(8)])
    assert len(np.unique(grid)) == 40 * 64
    assert keys(1, 2)[0] != keys(2, 1)[0]


def test_uniform_fills_the_open_interval_evenly() -> None:
    values = uniform(keys(0, np.arange(400)), 500)
    assert values.dtype == np.float32
    assert 0 < values.min() < 1e-4 < 1 - 1e-4 < values.max() < 1
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    np.testing.assert_allclose(counts / values.size, 1 / 20, atol=2e-3)


def test_normal_has_the_moments_and_no_correlation_between_neighbours() -> None:
    values = normal(keys(0, np.arange(400)), 501).astype(np.float64)
    assert values.shape == (400, 501)
    np.testing.assert_allclose([values.mean(), values.std(), (values**4).mean()], [0, 1, 3], atol=0.05)
    assert abs((values[:, 1:] * values[:, :-1]).mean()) < 0.01
    assert abs((values[1:] * values[:-1]).mean()) < 0.01


@given(group=st.lists(st.integers(0, 3), max_size=12))
def test_rank_counts_within_the_group(group: list[int]) -> None:
    expected = [group[:i].count(g) for i, g in enumerate(group)]
    np.testing.assert_array_equal(rank(np.array(group, np.intp)), expected)
