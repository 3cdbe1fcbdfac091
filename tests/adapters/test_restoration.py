"""What brings a session back: how much, how often, which parameters, and only where it should."""

import numpy as np

from acclimate.adapters.fields import STATS, STEPS, THETA
from acclimate.adapters.moves import Descent, Following, Restoring
from acclimate.adapters.objectives import entropy_loss
from acclimate.adapters.optimisers import Adam
from acclimate.adapters.randomness import keys
from acclimate.adapters.recipes import Recipe
from acclimate.adapters.requests import Gradient
from acclimate.adapters.restoration import (
    CheckpointRing,
    FisherMasked,
    FisherPull,
    SourceAverage,
    Stochastic,
    TrustRegion,
)
from acclimate.adapters.restoration.ring import RING_SCORE, RING_STATS, RING_THETA, RING_VERSION, SERVING
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


def test_a_pull_shrinks_each_offset_by_its_fisher_and_never_overshoots() -> None:
    fisher = np.abs(GRADIENT[0])
    back = FisherPull(1e6).apply(THETAS, HOME, fisher)
    np.testing.assert_allclose(
        FisherPull(0.5).apply(THETAS, HOME, fisher) - HOME, (THETAS - HOME) / (1 + fisher), atol=1e-5
    )
    assert (np.abs(back - HOME) <= np.abs(THETAS - HOME)).all()
    # The proximal point: the penalty's gradient there is the way back from it.
    pulled = FisherPull(0.5).apply(THETAS, HOME, fisher)
    np.testing.assert_allclose(THETAS - pulled, FisherPull(0.5).gradient(pulled, HOME, fisher), atol=1e-4)


def test_a_masked_restoration_takes_the_gradient_that_the_move_followed() -> None:
    free, masked = composed(descent()), composed(Restoring(descent(), (FisherMasked(0.25),)))
    inputs = stream(0, 24)
    asked: list = []
    loose = step(free, fresh(free, ENGINE, 1), inputs, ONE, ENGINE, asked=asked).state[THETA][0]
    (request,) = [one for one in asked if isinstance(one, Gradient)]
    importance = np.abs(ENGINE.vjp(request).grad_theta.sum(axis=0))
    held = step(masked, fresh(masked, ENGINE, 1), inputs, ONE, ENGINE).state[THETA][0]
    back = held == SOURCE.theta
    assert back.sum() == len(SOURCE.theta) // 4
    assert importance[back].max() < importance[~back].min()
    np.testing.assert_array_equal(held[~back], loose[~back])


def checkpointed(ring: CheckpointRing, scores: list[float]) -> dict[str, np.ndarray]:
    """A ring that took a checkpoint of each score; the session beside it took none."""
    state = {name: np.stack([value] * 2) for name, value in ring.template(SOURCE).items()}
    for turn in range(1, ring.every * len(scores) + 1):
        state |= {
            THETA: np.full((2, len(SOURCE.theta)), turn, np.float32),
            STATS: np.full((2, len(SOURCE.stats)), -turn, np.float32),
            STEPS: np.full(2, turn),
            SERVING: np.full(2, 100 + turn),
        }
        due = ring.due(state)
        assert due.tolist() == [turn % ring.every == 0] * 2
        state |= ring.take(state, np.float32([scores[(turn - 1) // ring.every]] * 2), due & np.array([True, False]))
    return state


def test_the_ring_keeps_the_latest_and_knows_the_best_and_its_version() -> None:
    ring = CheckpointRing(capacity=3, every=2)
    state = checkpointed(ring, [9, 1, 5, 3, 2])
    np.testing.assert_array_equal(np.sort(state[RING_SCORE][0]), [2, 3, 5])
    np.testing.assert_array_equal(np.sort(state[RING_THETA][0, :, 0]), [6, 8, 10])
    place = ring.best(state)
    assert place[1] == -1
    assert (state[RING_THETA][0, place[0], 0], state[RING_STATS][0, place[0], 0]) == (6, -6)
    assert state[RING_VERSION][0, place[0]] == 107
    np.testing.assert_array_equal(state[RING_VERSION][1], 0)


def test_the_latest_of_equally_good_checkpoints_is_taken_even_if_all_are_bad() -> None:
    ring = CheckpointRing(capacity=3, every=1)
    state = checkpointed(ring, [0, 0])
    assert state[RING_VERSION][0, ring.best(state)[0]] == 103
