"""CMA-ES on functions with a known minimum, and FOA's promises about what it serves and answers."""

import numpy as np

from acclimate.adapters.fields import THETA
from acclimate.adapters.guards import Guards
from acclimate.adapters.optimisers.evolution import COVARIANCE, MEAN, SIGMA, EvolutionStrategy
from acclimate.adapters.randomness import keys, normal
from acclimate.adapters.requests import Gradient
from acclimate.runtime.engines.reference import reference_engine
from tests.adapters.stepping import fresh, recipe, rows_of, step, stream

ENGINE = reference_engine()
STRATEGY = EvolutionStrategy(dimensions=5, population=12)


def search(strategy: EvolutionStrategy, fitness, generations: int, sessions: int = 2) -> dict[str, np.ndarray]:
    state = {name: np.stack([value] * sessions) for name, value in strategy.template().items()}
    for turn in range(generations):
        draws = normal(keys(np.arange(sessions), turn), strategy.population * strategy.dimensions)
        points = strategy.ask(state, draws)
        state = strategy.tell(state, points, fitness(points).astype(np.float32))
    return state


def test_it_finds_the_minimum_of_a_stretched_bowl() -> None:
    stretch, goal = np.array([1, 4, 16, 64, 256]), np.array([1, -2, 0.5, 0, 3])
    state = search(STRATEGY, lambda x: (stretch * (x - goal) ** 2).sum(axis=-1), 150)
    np.testing.assert_allclose(state[MEAN], [goal, goal], atol=1e-2)
    assert (state[SIGMA] < 0.1).all()


def test_the_covariance_learns_the_bowls_shape() -> None:
    stretch = np.array([1, 1, 1, 1, 100.0])
    state = search(STRATEGY, lambda x: (stretch * x**2).sum(axis=-1), 60)
    spread = np.sqrt(np.diagonal(state[COVARIANCE], axis1=1, axis2=2))
    assert (spread[:, 4] < 0.5 * spread[:, :4].min(axis=1)).all()


def test_sessions_search_on_their_own() -> None:
    def bowl(x: np.ndarray) -> np.ndarray:
        return ((x - 1) ** 2).sum(axis=-1)

    both, alone = search(STRATEGY, bowl, 10), search(STRATEGY, bowl, 10, sessions=1)
    np.testing.assert_allclose(both[MEAN][0], alone[MEAN][0], rtol=1e-5)
    assert not np.allclose(both[MEAN][0], both[MEAN][1])


def test_without_preference_the_mean_stays_near_and_nothing_breaks() -> None:
    state = search(STRATEGY, lambda x: np.full(x.shape[:2], np.nan), 5)
    assert all(np.isfinite(value).all() for value in state.values())


def test_foa_serves_the_best_candidate_and_never_a_worse_one() -> None:
    # Of candidates that a canary refuses none is served, however good it is on the batch.
    guards, asked = Guards(canary_every=0), []
    chosen = recipe("foa", ENGINE, guards, prior=0, population=9, dimensions=4, radius=0.05)
    state, inputs, group = fresh(chosen, ENGINE, 2), stream(0, 32), np.repeat([0, 1], 16)
    losses = []
    for _ in range(6):
        result = step(chosen, state, inputs, group, ENGINE, asked=asked)
        state = result.state
        losses.append(result.loss)
    assert result.asked.backward == 0
    assert rows_of(asked, Gradient) == []
    # The same batch again and again, normalised with itself: the best so far can only be beaten.
    assert (np.diff(losses, axis=0) <= 1e-5).all()
    assert (losses[-1] < losses[0]).all()
    assert np.abs(state[THETA] - ENGINE.source.theta).max() > 1e-3
