"""Corrections of answers: LAME against its definition, priors against arithmetic, and sessions apart."""

import numpy as np
import pytest
import torch

from acclimate.adapters.laplacian import Laplacian
from acclimate.adapters.numerics import softmax
from acclimate.adapters.outputs import AsIs, OutputStage
from acclimate.adapters.priors import PRIOR, BatchPrior, LabelShift
from acclimate.adapters.prototypes import Prototypes
from acclimate.runtime.engines.reference import reference_engine
from tests.adapters.stepping import fresh, recipe, step, stream

ENGINE = reference_engine()
SOURCE = ENGINE.source
STAGES = [AsIs(), BatchPrior(), LabelShift(), Laplacian(), Prototypes()]
NONE = np.zeros((0, 0), np.float32)
TWO = np.repeat([0, 1], 12)


def logits(seed: int, rows: int, classes: int = 4) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(rows, classes)) * 2).astype(np.float32)


def states(stage: OutputStage, sessions: int) -> dict[str, np.ndarray]:
    return {name: np.stack([value] * sessions) for name, value in stage.template(SOURCE).items()}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: type(stage).__name__)
def test_sessions_do_not_see_each_other_and_nothing_is_overwritten(stage: OutputStage) -> None:
    mine, other = logits(0, 12), logits(1, 12)
    both, state = np.concatenate([mine, other]), states(stage, 2)
    seen = stream(2, 24)
    before = {name: value.copy() for name, value in state.items()}
    together, changed = stage.apply(SOURCE, state, both, TWO, seen)
    first = {name: value[:1] for name, value in state.items()}
    alone, changed_alone = stage.apply(SOURCE, first, mine, np.zeros(12, np.intp), seen[:12])
    np.testing.assert_allclose(together[:12], alone, rtol=1e-5, atol=1e-6)
    order = np.arange(24).reshape(2, 12).T.reshape(-1)
    mixed, _ = stage.apply(SOURCE, state, both[order], TWO[order], seen[order])
    np.testing.assert_allclose(mixed, together[order], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(both, np.concatenate([logits(0, 12), logits(1, 12)]))
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)
        np.testing.assert_allclose(changed[name][0], changed_alone[name][0], rtol=1e-5)
    assert together.dtype == np.float32


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: type(stage).__name__)
def test_one_sample_is_answered_as_it_was(stage: OutputStage) -> None:
    one = logits(2, 1)
    answer, _ = stage.apply(SOURCE, states(stage, 1), one, np.zeros(1, np.intp), NONE)
    assert np.isfinite(answer).all()
    assert answer.argmax() == one.argmax()


def plain_lame(
    z: np.ndarray, neighbours: int, iterations: int, features: np.ndarray | None = None, kernel: bool = False
) -> np.ndarray:
    """Boudiaf et al.'s loop over a dense affinity, in torch: features of length one, or Hellinger distances."""
    p = torch.tensor(z, dtype=torch.float64).softmax(1)
    places = p.sqrt()
    if features is not None:
        places = torch.nn.functional.normalize(torch.tensor(features, dtype=torch.float64))
    distance = torch.cdist(places, places)
    if kernel:
        width = distance.topk(neighbours, largest=False).values[:, -1].mean()
        affinity = (-(distance**2) / (2 * width**2)).exp()
    else:
        distance.fill_diagonal_(torch.inf)
        affinity = torch.zeros_like(distance).scatter_(1, distance.topk(neighbours, largest=False).indices, 1.0)
    answer = p
    for _ in range(iterations):
        answer = (p.log() + affinity @ answer).softmax(1)
    return answer.numpy()


def test_lame_is_its_fixed_point_iteration() -> None:
    z = logits(3, 30)
    answer, _ = Laplacian(most=7, tolerance=0).apply(SOURCE, {}, z, np.zeros(30, np.intp), NONE)
    np.testing.assert_allclose(np.exp(answer), plain_lame(z, 5, 7), atol=1e-5)


@pytest.mark.parametrize("kernel", [False, True])
def test_lame_measures_nearness_between_features_where_there_are_some(kernel: bool) -> None:
    z, features = logits(3, 60), stream(4, 60)
    stage, group = Laplacian(most=7, tolerance=0, kernel=kernel), np.repeat([0, 1], 30)
    answer, _ = stage.apply(SOURCE, {}, z, group, features)
    for part in (slice(0, 30), slice(30, 60)):
        np.testing.assert_allclose(np.exp(answer[part]), plain_lame(z[part], 5, 7, features[part], kernel), atol=1e-4)


def test_a_broken_answer_is_nobodys_neighbour() -> None:
    z, group = logits(3, 24), np.repeat([0, 1], 12)
    whole, _ = Laplacian().apply(SOURCE, {}, z, group, NONE)
    z[2, 1] = np.nan
    broken, _ = Laplacian().apply(SOURCE, {}, z, group, NONE)
    np.testing.assert_array_equal(broken[12:], whole[12:])


def test_lame_stops_when_its_energy_does() -> None:
    z = logits(3, 30)
    settled, _ = Laplacian().apply(SOURCE, {}, z, np.zeros(30, np.intp), NONE)
    longer, _ = Laplacian(most=1000).apply(SOURCE, {}, z, np.zeros(30, np.intp), NONE)
    np.testing.assert_allclose(settled, longer, atol=1e-4)


def test_lame_lets_neighbours_outvote_an_outlier() -> None:
    sure, unsure = np.tile(np.float32([3, 0, 0, 0]), (8, 1)), np.float32([[0.9, 1, 0, 0]])
    answer, _ = Laplacian().apply(SOURCE, {}, np.concatenate([sure, unsure]), np.zeros(9, np.intp), NONE)
    assert unsure.argmax() == 1
    assert (answer.argmax(axis=1) == 0).all()


def test_batch_prior_multiplies_probabilities_by_the_smoothed_mean() -> None:
    z = logits(4, 20)
    answer, _ = BatchPrior().apply(SOURCE, {}, z, np.zeros(20, np.intp), NONE)
    mean = softmax(z).mean(axis=0)
    smooth = max(1 / 20, 1 / 4) / mean.max()
    expected = softmax(z) * (mean + smooth) / (1 + smooth * 4)
    np.testing.assert_allclose(softmax(answer), expected / expected.sum(axis=1, keepdims=True), rtol=1e-4)


def test_label_shift_finds_the_frequencies_of_a_shifted_stream() -> None:
    """A known generative model: two normal classes, whose posteriors are exact under equal priors."""
    draws = np.random.default_rng(5)
    engine = reference_engine(classes=2)
    stage = LabelShift(memory=200, smoothing=0)
    state = {PRIOR: np.array([[0.5, 0.5]], np.float32)}
    source = type(engine.source)(**{**vars(engine.source), "class_prior": np.array([0.5, 0.5], np.float32)})
    wrong = np.zeros(2)
    for turn in range(100):
        truth = (draws.random(50) < 0.1).astype(int)
        x = draws.normal(size=50) + np.where(truth == 1, 0.7, -0.7)
        z = np.stack([-0.7 * x, 0.7 * x], axis=1).astype(np.float32)
        answer, changed = stage.apply(source, state, z, np.zeros(50, np.intp), NONE)
        state = state | changed
        if turn >= 50:
            wrong += [(z.argmax(axis=1) != truth).sum(), (answer.argmax(axis=1) != truth).sum()]
    np.testing.assert_allclose(state[PRIOR][0], [0.9, 0.1], atol=0.05)
    assert wrong[1] < 0.6 * wrong[0]


def test_the_step_answers_with_the_corrected_logits_and_remembers() -> None:
    plain, shifted = recipe("norm", ENGINE), recipe("label_shift", ENGINE)
    inputs, group = stream(0, 24), np.zeros(24, np.intp)
    before = step(plain, fresh(plain, ENGINE, 1), inputs, group, ENGINE)
    state = fresh(shifted, ENGINE, 1)
    after = step(shifted, state, inputs, group, ENGINE)
    expected, changed = LabelShift().apply(SOURCE, state, before.logits, group, NONE)
    np.testing.assert_array_equal(after.logits, expected)
    np.testing.assert_array_equal(after.state[PRIOR], changed[PRIOR])
    assert not np.array_equal(after.state[PRIOR], state[PRIOR])
