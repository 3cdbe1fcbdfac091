"""Detectors against `river` value by value, and distances against arithmetic."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift

from acclimate.adapters.discrepancy import discrepancy
from acclimate.adapters.drift import Adwin, Detector, PageHinkley, fisher_distance, histogram_divergence
from acclimate.runtime.engines.reference import reference_engine

SOURCE = reference_engine().source
DETECTORS = [Adwin(clock=8), PageHinkley(tolerance=0.1, threshold=8)]


def stream(seed: int, lengths: Iterable[int], levels: Iterable[float], noise: float = 0.3) -> np.ndarray:
    draws = np.random.default_rng(seed)
    return np.concatenate([
        level + noise * draws.normal(size=length) for length, level in zip(lengths, levels, strict=True)
    ])  # fmt: skip


def fresh(detector: Detector, sessions: int) -> dict[str, np.ndarray]:
    return {name: np.stack([value] * sessions) for name, value in detector.template().items()}


def alarms(detector: Detector, values: np.ndarray) -> list[int]:
    state, found = fresh(detector, 1), []
    for index, value in enumerate(values):
        state, changed = detector.update(state, np.array([value]), np.ones(1, np.bool_))
        if changed[0]:
            found.append(index)
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), jump=st.floats(-2, 2))
def test_page_hinkley_equals_river(seed: int, jump: float) -> None:
    values = stream(seed, (150, 100, 150), (0, jump, -jump))
    peer, expected = drift.PageHinkley(threshold=5, delta=0.01, min_instances=20), []
    for index, value in enumerate(values):
        peer.update(value)
        if peer.drift_detected:
            expected.append(index)
    assert alarms(PageHinkley(threshold=5, tolerance=0.01, grace=20), values) == expected


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), jump=st.floats(-2, 2), clock=st.sampled_from([1, 8, 32]))
def test_adwin_equals_river_up_to_and_at_the_first_change(seed: int, jump: float, clock: int) -> None:
    values = stream(seed, (300, 200), (0, jump))
    ours, peer = Adwin(clock=clock), drift.ADWIN(clock=clock)
    state = fresh(ours, 1)
    for value in values:
        state, changed = ours.update(state, np.array([value]), np.ones(1, np.bool_))
        peer.update(value)
        assert changed[0] == peer.drift_detected
        assert ours.length(state)[0] == peer.width
        np.testing.assert_allclose(ours.mean(state)[0], peer.estimation, atol=1e-9)
        if peer.drift_detected:
            break


def test_both_stay_silent_on_a_steady_stream_and_speak_soon_after_a_change() -> None:
    steady, moved = stream(1, (2000,), (0.5,)), stream(2, (500, 200), (0.5, 1.2))
    for detector in (Adwin(), PageHinkley(tolerance=0.05, threshold=10)):
        assert alarms(detector, steady) == []
        found = alarms(detector, moved)
        assert found
        assert 500 <= found[0] < 560


def test_adwins_memory_is_bounded_and_forgets_the_oldest() -> None:
    detector = Adwin(levels=4)
    state = fresh(detector, 1)
    for value in range(1000):
        state, _ = detector.update(state, np.array([value % 7 / 7]), np.ones(1, np.bool_))
    assert 40 < detector.length(state)[0] <= 5 * 15
    np.testing.assert_allclose(detector.mean(state)[0], 3 / 7, atol=0.05)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_sessions_are_watched_apart_whoever_has_a_value_at_a_time(detector: Detector) -> None:
    streams = [stream(s, (120, 120), (0, level)) for s, level in enumerate((0, 1.5, -1.5))]
    alone = [len(alarms(detector, values)) for values in streams]
    draws = np.random.default_rng(0)
    state, count, at = fresh(detector, 3), np.zeros(3, int), np.zeros(3, int)
    while (at < 240).any():
        present = (draws.random(3) < 0.6) & (at < 240)
        value = np.array([streams[s][min(at[s], 239)] for s in range(3)])
        before = {name: array.copy() for name, array in state.items()}
        after, changed = detector.update(state, value, present)
        for name, array in before.items():
            np.testing.assert_array_equal(state[name], array)
            np.testing.assert_array_equal(after[name][~present], array[~present])
            assert (after[name].dtype, after[name].shape) == (array.dtype, array.shape)
        assert not (changed & ~present).any()
        state, count, at = after, count + changed, at + present
    assert list(count) == alone
    assert [n > 0 for n in alone] == [False, True, True]


def test_histogram_divergence_is_zero_for_equal_and_ln_2_for_disjoint_histograms() -> None:
    prior = np.array([0.5, 0.5, 0], np.float32)
    share = np.array([[0.5, 0.5, 0], [0, 0, 1], [1, 0, 0]], np.float32)
    divergence = histogram_divergence(share, prior)
    np.testing.assert_allclose(divergence[:2], [0, np.log(2)], atol=1e-6)
    assert 0 < divergence[2] < np.log(2)


def test_distances_count_what_moved() -> None:
    theta = np.stack([SOURCE.theta, SOURCE.theta + np.eye(len(SOURCE.theta), dtype=np.float32)[3] * 2])
    np.testing.assert_allclose(fisher_distance(SOURCE, theta), [0, 4 * SOURCE.fisher[3]])
    moved = SOURCE.stats.copy()
    moved[:8] += 0.5
    moved[8:] *= 4
    both = discrepancy(SOURCE, np.stack([SOURCE.stats, moved]))
    np.testing.assert_allclose(both, [0, 0.25 + 1], atol=1e-4)
