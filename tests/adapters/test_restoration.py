"""What brings a session back: how much, how often, which parameters, and only where it should."""

import numpy as np

from acclimate.adapters.drift import PageHinkley
from acclimate.adapters.fields import STATS, STEPS, THETA
from acclimate.adapters.moves import Descent, Following, Restoring, Watching
from acclimate.adapters.moves.watching import CHANGED
from acclimate.adapters.objectives import entropy_loss
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.randomness import keys
from acclimate.adapters.recipes import Recipe
from acclimate.adapters.restoration import (
    CheckpointRing,
    FisherMasked,
    Flagged,
    SourceAverage,
    Stochastic,
    TrustRegion,
)
from acclimate.adapters.restoration.ring import RING_SCORE, RING_THETA
from acclimate.adapters.statistics import Blend
from acclimate.runtime.engines.reference import reference_engine
from tests.adapters.plain import OPEN
from tests.adapters.stepping import fresh, step, stream

ENGINE = reference_engine()
SOURCE = ENGINE.source
DRAWS = np.random.default_rng(0)
THETAS = DRAWS.normal(size=(3, 5000)).astype(np.float32)
HOME = DRAWS.normal(size=5000).astype(np.float32)
GRADIENT = DRAWS.normal(size=(3, 5000)).astype(np.float32)
KEYS = keys(0, np.arange(3))
ONE = np.zeros(24, np.intp)


def descent(lr: float = 1e-2) -> Descent:
    return Descent(entropy_loss, Following(Adam(lr)))


def composed(move, **parts) -> Recipe:
    return Recipe("composed", 24, Blend(40), move, guards=OPEN, **parts)


def test_averaging_moves_by_its_share() -> None:
    np.testing.assert_allclose(SourceAverage(0.9).apply(THETAS, HOME), 0.9 * THETAS + 0.1 * HOME, atol=1e-6)


def test_stochastic_restores_its_rate_and_nothing_else() -> None:
    back = Stochastic(0.05).apply(THETAS, HOME, GRADIENT, KEYS)
    restored = back == HOME
    np.testing.assert_allclose(restored.mean(axis=1), 0.05, atol=0.015)
    np.testing.assert_array_equal(back[~restored], THETAS[~restored])
    assert not np.array_equal(restored[0], restored[1])


def test_fisher_mask_restores_the_least_important() -> None:
    back = FisherMasked(0.1).apply(THETAS, HOME, GRADIENT, KEYS)
    restored = back == HOME
    np.testing.assert_array_equal(restored.sum(axis=1), 500)
    for row in range(3):
        assert np.abs(GRADIENT[row, restored[row]]).max() < np.abs(GRADIENT[row, ~restored[row]]).min()


def test_trust_region_projects_what_lies_outside_and_only_that() -> None:
    near = HOME + np.float32(0.01) * GRADIENT[0]
    back = TrustRegion(0.4).apply(np.stack([near, THETAS[1]]), HOME)
    np.testing.assert_array_equal(back[0], near)
    offset = back[1] - HOME
    np.testing.assert_allclose(np.linalg.norm(offset), 0.4 * np.linalg.norm(HOME), rtol=1e-5)
    cosine = offset @ (THETAS[1] - HOME) / np.linalg.norm(offset) / np.linalg.norm(THETAS[1] - HOME)
    assert cosine > 0.9999


def test_trust_region_leaves_broken_rows_to_the_guard() -> None:
    broken = THETAS.copy()
    broken[1, 3] = np.nan
    back = TrustRegion(0.4).apply(broken, HOME)
    assert np.isnan(back[1]).sum() == 1
    assert np.isfinite(back[[0, 2]]).all()


def test_a_restoring_move_stays_in_its_region_for_long() -> None:
    chosen = composed(Restoring(descent(0.1), (TrustRegion(0.2),)))
    free = composed(descent(0.1))
    held, loose = fresh(chosen, ENGINE, 1), fresh(free, ENGINE, 1)
    for turn in range(15):
        held = step(chosen, held, stream(turn, 24), ONE, ENGINE).state
        loose = step(free, loose, stream(turn, 24), ONE, ENGINE).state
    size = np.linalg.norm(SOURCE.theta)
    assert np.linalg.norm(loose[THETA][0] - SOURCE.theta) > 0.3 * size
    np.testing.assert_allclose(np.linalg.norm(held[THETA][0] - SOURCE.theta), 0.2 * size, rtol=1e-4)


def test_restorations_follow_one_another_in_order() -> None:
    chosen = composed(Restoring(descent(), (Stochastic(1.0), SourceAverage(0.5))))
    state = step(chosen, fresh(chosen, ENGINE, 1), stream(0, 24), ONE, ENGINE).state
    np.testing.assert_allclose(state[THETA][0], SOURCE.theta, atol=1e-6)


def test_the_ring_keeps_the_latest_and_goes_back_to_the_best() -> None:
    ring = CheckpointRing(capacity=3, every=2)
    state = {name: np.stack([value] * 2) for name, value in ring.template(SOURCE).items()}
    scores = [9, 1, 5, 3, 2]
    for turn in range(1, 11):
        here = {
            THETA: np.full((2, len(SOURCE.theta)), turn, np.float32),
            STATS: np.full((2, len(SOURCE.stats)), -turn, np.float32),
            STEPS: np.full(2, turn),
        }
        state = state | here
        state |= ring.take(state, np.float32([scores[(turn - 1) // 2]] * 2))
    np.testing.assert_array_equal(np.sort(state[RING_SCORE][0]), [2, 3, 5])
    np.testing.assert_array_equal(np.sort(state[RING_THETA][0, :, 0]), [6, 8, 10])
    back = ring.go_back(state, np.array([True, False]))
    np.testing.assert_array_equal(back[THETA][:, 0], [6, 10])
    np.testing.assert_array_equal(back[STATS][:, 0], [-6, -10])


def play(chosen: Recipe, shifts: list[float], turns: int = 20):
    state, changes, resets = fresh(chosen, ENGINE, 1), [], []
    for turn in range(turns * len(shifts)):
        inputs = stream(turn, 24, shift=0, scale=shifts[turn // turns])
        result = step(chosen, state, inputs, ONE, ENGINE)
        state = result.state
        if state[CHANGED][0]:
            changes.append(turn)
        if result.restore[0]:
            resets.append(turn)
            state = fresh(chosen, ENGINE, 1)
    return state, changes, resets


DETECTOR = PageHinkley(tolerance=0.02, threshold=0.4, grace=5)


def test_a_change_of_the_stream_is_found_and_resets_where_that_is_asked_for() -> None:
    """Statistics are held, so that a scaled stream is answered with another certainty."""
    still = Watching(descent(0.0), DETECTOR)
    _, changes, resets = play(Recipe("watched", 24, Blend(1e6), still, guards=OPEN), [1.0, 1.0])
    assert changes == resets == []
    _, changes, resets = play(Recipe("watched", 24, Blend(1e6), still, guards=OPEN), [1.0, 4.0])
    assert changes
    assert 20 <= changes[0] < 30
    assert resets == []
    flagged = Recipe("watched", 24, Blend(1e6), still, guards=OPEN, resets=(Flagged(CHANGED),))
    _, changes, resets = play(flagged, [1.0, 4.0])
    assert resets == changes != []


def test_a_change_sends_a_session_with_a_ring_to_one_of_its_checkpoints() -> None:
    chosen = Recipe("watched", 24, Blend(1e6), Watching(descent(), DETECTOR, CheckpointRing(3, 4)), guards=OPEN)
    state, rewound = fresh(chosen, ENGINE, 1), 0
    for turn in range(40):
        before = state
        state = step(chosen, before, stream(turn, 24, shift=0, scale=4.0 if turn >= 20 else 1.0), ONE, ENGINE).state
        if state[CHANGED][0]:
            rewound += 1
            ring = np.concatenate([state[RING_THETA][0], before[RING_THETA][0]])
            assert (ring == state[THETA][0]).all(axis=1).any()
    assert rewound > 0
