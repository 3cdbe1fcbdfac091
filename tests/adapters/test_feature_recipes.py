"""`t3a` and `cafa` against torch loops written from METHODS' equations, and what they refuse."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.errors import RecipeError
from acclimate.adapters.features import FeatureStatistics, Precision
from acclimate.adapters.guards import Guards
from acclimate.adapters.objectives.alignment import class_alignment
from acclimate.adapters.prototypes import ENTROPY, FREE, SUPPORTS, required
from acclimate.adapters.recipes import build, template
from acclimate.runtime.engines.reference import EPSILON
from tests.adapters.plain import (
    ENGINE,
    OPEN,
    PRIOR,
    ROWS,
    STEPS,
    ZEROS,
    Plain,
    against,
    descend,
    entropies,
    tensor,
)
from tests.adapters.stepping import fresh, recipe, step, stream

CLASSES, WIDTH = 5, 6
WEIGHT, BIAS = tensor(ENGINE.weights), tensor(ENGINE.bias)
FIGURES = required(ENGINE.source, "a test")


def features(session: Plain, x: torch.Tensor, stats: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    gamma, beta = session.theta.chunk(2)
    return gamma * (x - stats[0]) / torch.sqrt(stats[1] + EPSILON) + beta


def blended(session: Plain, inputs: np.ndarray) -> torch.Tensor:
    """Features normalised with the session's statistics blended with the batch, which it then keeps."""
    x = tensor(inputs)
    session.follow(x)
    return features(session, x, (session.mean, session.var))


class Classifier:
    """Iwasawa and Matsuo's module: every support ever seen, of which the surest of each class count."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.supports = WEIGHT.T
        made = self.supports @ WEIGHT + BIAS
        self.answers, self.doubt = made.argmax(1), entropies(made)

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        made = z @ WEIGHT + BIAS
        self.supports = torch.cat([self.supports, z])
        self.answers, self.doubt = torch.cat([self.answers, made.argmax(1)]), torch.cat([self.doubt, entropies(made)])
        keep = []
        for number in range(CLASSES):
            members = torch.where(self.answers == number)[0]
            keep.append(members[self.doubt[members].argsort(stable=True)][: self.most])
        chosen = torch.cat(keep)
        self.supports, self.answers, self.doubt = self.supports[chosen], self.answers[chosen], self.doubt[chosen]
        unit = torch.nn.functional.normalize(self.supports, dim=1)
        prototypes = unit.T @ torch.nn.functional.one_hot(self.answers, CLASSES).double()
        return z @ torch.nn.functional.normalize(prototypes, dim=0)


@pytest.mark.parametrize("most", [3, 20])
def test_t3a_follows_torch(most: int) -> None:
    classifier = Classifier(most)

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        return classifier(blended(session, inputs).detach())

    state, result = against("t3a", Plain(), plain_step, {"prior": PRIOR, "supports": most})
    held = state[ENTROPY][0] < FREE
    np.testing.assert_array_equal(held.sum(axis=1), np.bincount(classifier.answers, minlength=CLASSES))
    np.testing.assert_allclose(np.sort(state[ENTROPY][0][held]), np.sort(classifier.doubt), atol=1e-5)
    frozen = ENGINE.frozen(stream(STEPS - 1, ROWS, features=WIDTH)).argmax(axis=1)
    assert (result.logits.argmax(axis=1) != frozen).any(), "the prototypes change nothing"


def test_t3a_keeps_the_first_supports_where_nothing_is_surer() -> None:
    chosen = recipe("t3a", ENGINE, OPEN, batch_rows=ROWS, supports=1)
    state = fresh(chosen, ENGINE, 1)
    sure = np.full_like(state[ENTROPY], -1)
    after = step(chosen, state | {ENTROPY: sure}, stream(0, ROWS, features=WIDTH), ZEROS, ENGINE).state
    np.testing.assert_array_equal(after[SUPPORTS], state[SUPPORTS])


def test_cafa_follows_torch() -> None:
    plain = Plain()
    adam = torch.optim.Adam([plain.theta], lr=1e-2)
    centres, variance = tensor(FIGURES.centres), tensor(FIGURES.residual)
    inverse = 1 / (variance + 0.01 * variance.mean())
    before = []

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        x = tensor(inputs)
        stats = session.blend(x, ROWS / (ROWS + PRIOR))
        z = features(session, x, stats)
        logits = z @ WEIGHT + BIAS
        distance = (((z[:, None] - centres) ** 2) * inverse).sum(2)
        loss = torch.log(distance.gather(1, logits.argmax(1, keepdim=True))[:, 0] / distance.sum(1)).mean()
        before.append(loss.item())
        descend(adam, loss)
        session.follow(x)
        return logits

    _, result = against("cafa", plain, plain_step, {"prior": PRIOR, "lr": 1e-2})
    np.testing.assert_allclose(result.loss[0], before[-1], rtol=1e-4)
    assert before[-1] < before[0], "nothing was learnt"


@given(seed=st.integers(0, 2**16), rank=st.integers(0, 8))
def test_the_cotangent_of_alignment_is_its_gradient(seed: int, rank: int) -> None:
    draws = np.random.default_rng(seed)
    figures = statistics(draws, rank)
    precision, seen = Precision.of(figures, 0.01), draws.normal(size=(3, WIDTH)) * 2
    label, nudge = draws.integers(0, CLASSES, 3), 1e-3
    cotangent = class_alignment(seen, figures.centres, precision, label).cotangent
    for d in range(WIDTH):
        move = np.zeros_like(seen)
        move[:, d] = nudge
        up, down = (class_alignment(seen + s * move, figures.centres, precision, label).loss for s in (1, -1))
        np.testing.assert_allclose(cotangent[:, d], (up - down) / (2 * nudge), atol=2e-3, rtol=1e-2)


def statistics(draws: np.random.Generator, rank: int) -> FeatureStatistics:
    return FeatureStatistics(
        centres=draws.normal(size=(CLASSES, WIDTH)).astype(np.float32),
        shares=np.full(CLASSES, 1 / CLASSES, np.float32),
        factor=draws.normal(size=(WIDTH, rank)).astype(np.float32),
        residual=draws.uniform(0.2, 1, WIDTH).astype(np.float32),
        weight=draws.normal(size=(CLASSES, WIDTH)).astype(np.float32),
        bias=np.zeros(CLASSES, np.float32),
    )


@given(seed=st.integers(0, 2**16), rank=st.integers(0, 8))
def test_the_precision_is_the_inverse(seed: int, rank: int) -> None:
    figures = statistics(np.random.default_rng(seed), rank)
    within = figures.factor @ figures.factor.T.astype(np.float64) + np.diag(figures.residual)
    ridged = within + 0.1 * np.trace(within) / WIDTH * np.eye(WIDTH)
    np.testing.assert_allclose(Precision.of(figures, 0.1).times(np.eye(WIDTH)), np.linalg.inv(ridged), atol=1e-6)


def test_mean_and_covariance_are_those_of_everything() -> None:
    draws = np.random.default_rng(0)
    label = draws.integers(0, CLASSES, 500)
    seen = (draws.normal(size=(CLASSES, WIDTH))[label] * 2 + draws.normal(size=(500, WIDTH))).astype(np.float32)
    centres = np.stack([seen[label == c].mean(axis=0) for c in range(CLASSES)])
    apart = seen - centres[label]
    factor = np.linalg.cholesky(apart.T @ apart / 500).astype(np.float32)
    shares = (np.bincount(label) / 500).astype(np.float32)
    figures = dataclasses.replace(
        statistics(draws, 0), centres=centres, shares=shares, factor=factor, residual=np.zeros(WIDTH, np.float32)
    )
    np.testing.assert_allclose(figures.mean, seen.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(figures.covariance(), np.cov(seen.T, bias=True), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["t3a", "cafa"])
def test_a_bundle_without_features_is_refused(name: str) -> None:
    bare = dataclasses.replace(ENGINE.source, features=None)
    with pytest.raises(RecipeError, match=f"{name}.*export the model again"):
        build(name, {}, bare, Guards())


def test_cafa_needs_the_centres_of_its_classes() -> None:
    one = dataclasses.replace(FIGURES, centres=FIGURES.centres[:1], shares=np.ones(1, np.float32))
    with pytest.raises(RecipeError, match="no centres"):
        build("cafa", {}, dataclasses.replace(ENGINE.source, features=one), Guards())


def test_t3a_says_how_many_supports_there_is_room_for() -> None:
    wide = dataclasses.replace(FIGURES, centres=np.zeros((CLASSES, 2**17), np.float32))
    source = dataclasses.replace(ENGINE.source, features=wide)
    with pytest.raises(RecipeError, match="room for 1 in"):
        template(build("t3a", {}, source, Guards()), source)
