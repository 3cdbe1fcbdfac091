"""`rotta`, `ostta`, `supervised` and `zoa` against torch loops written from METHODS' equations."""

import math

import numpy as np
import torch

from acclimate.adapters.augmentations import Space, strong_view
from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.memory import AGE, FREE, INPUTS, LABEL
from acclimate.adapters.moves import perturbation, remembering
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.randomness import keys, uniform
from tests.adapters.plain import (
    ENGINE,
    OPEN,
    PRIOR,
    ROWS,
    STEPS,
    ZEROS,
    Plain,
    against,
    cross_entropies,
    descend,
    entropies,
    parameter,
    tensor,
)
from tests.adapters.stepping import fresh, recipe, step, stream


def test_rotta_follows_torch() -> None:
    """The memory is that of the step, which `test_memory.py` holds to the paper; the rest is done again."""
    chosen = recipe("rotta", ENGINE, OPEN, batch_rows=ROWS, lr=1e-2, capacity=20, pace=0.1)
    state, plain, other = fresh(chosen, ENGINE, 1), Plain(), Plain()
    student = parameter(ENGINE.source.theta)
    adam = torch.optim.Adam([student], lr=1e-2)
    for turn in range(STEPS):
        inputs = stream(turn, ROWS, features=6)
        result = step(chosen, state, inputs, ZEROS, ENGINE)
        np.testing.assert_allclose(result.logits, plain.logits(tensor(inputs)).detach(), rtol=1e-3, atol=1e-4)
        state = result.state
        slots = np.flatnonzero(state[LABEL][0] != FREE)
        kept, age = state[INPUTS][0, slots], tensor(state[AGE][0, slots] / 20)
        views = strong_view(kept, keys(0, remembering.VIEW, turn, slots), Space.of(ENGINE.source.canary_inputs))
        target = plain.logits(tensor(kept), stats=plain.blend(tensor(kept), 0.05)).detach()
        logits = other.logits(tensor(views), student, other.blend(tensor(views), 0.05))
        weight = torch.exp(-age) / (1 + torch.exp(-age))
        descend(adam, (weight * cross_entropies(logits, target)).mean())
        with torch.no_grad():
            plain.theta.copy_(0.9 * plain.theta + 0.1 * student)
            plain.mean, plain.var = plain.blend(tensor(kept), 0.05)
            other.mean, other.var = other.blend(tensor(views), 0.05)
        np.testing.assert_allclose(state[THETA][0], plain.theta.detach(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state[STATS][0], torch.cat([plain.mean, plain.var]), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state[remembering.STUDENT][0], student.detach(), rtol=1e-4, atol=1e-5)
    assert np.abs(state[THETA][0] - ENGINE.source.theta).max() > 1e-3


def test_ostta_follows_torch() -> None:
    plain, passed = Plain(), []
    adam = torch.optim.Adam([plain.theta], lr=5e-2)

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        x = tensor(inputs)
        session.follow(x)
        logits, anchor = session.logits(x), session.logits(x, session.source).softmax(1)
        answer = anchor.argmax(1, keepdim=True)
        known = (logits.softmax(1).gather(1, answer) >= anchor.gather(1, answer))[:, 0]
        loss = entropies(logits)
        keep = known & (loss.detach() < 0.4 * math.log(5))
        passed.append(float(known.double().mean()))
        if keep.any():
            pull = 0.1 * ((session.theta - session.source) ** 2).sum()
            weight = torch.exp(0.4 * math.log(5) - loss.detach())
            descend(adam, (weight * loss)[keep].mean() + pull)
        return logits

    # Epsilon 1: a prediction is as good as never redundant, and the filter under test is alone with the margin.
    against("ostta", plain, plain_step, {"lr": 5e-2, "epsilon": 1, "beta": 0.1, "prior": PRIOR})
    assert passed[0] == 1
    assert min(passed) < 1


def test_supervised_follows_torch_and_ignores_rows_without_a_label() -> None:
    chosen = recipe("supervised", ENGINE, OPEN, batch_rows=ROWS, lr=1e-2, prior=PRIOR, beta=0.1)
    state, plain = fresh(chosen, ENGINE, 1), Plain()
    adam = torch.optim.Adam([plain.theta], lr=1e-2)
    for turn in range(STEPS):
        inputs = stream(turn, ROWS, features=6)
        labels = np.where(np.arange(ROWS) % 3 == 0, (np.arange(ROWS) + turn) % 5, -1)
        result = step(chosen, state, inputs, ZEROS, ENGINE, labels=labels)
        state, x, known = result.state, tensor(inputs), labels >= 0
        assert result.selected[0] == result.asked.backward == known.sum()
        plain.follow(x)
        loss = torch.nn.functional.cross_entropy(plain.logits(x)[known], torch.tensor(labels[known]))
        np.testing.assert_allclose(result.loss[0], loss.detach(), rtol=1e-4)
        descend(adam, loss + 0.1 * ((plain.theta - plain.source) ** 2).sum())
        np.testing.assert_allclose(state[THETA][0], plain.theta.detach(), rtol=1e-4, atol=1e-5)


def test_supervised_without_labels_learns_nothing() -> None:
    chosen = recipe("supervised", ENGINE, OPEN)
    state = fresh(chosen, ENGINE, 1)
    result = step(chosen, state, stream(0, ROWS, features=6), ZEROS, ENGINE, labels=np.full(ROWS, -1))
    assert result.outcome[0] == Outcome.SKIPPED_NOT_SELECTED
    np.testing.assert_array_equal(result.state[THETA], state[THETA])


def test_zoa_follows_its_formula() -> None:
    plain, velocity = Plain(), torch.zeros(12, dtype=torch.float64)

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        x = tensor(inputs)
        session.follow(x)
        with torch.no_grad():
            draws = tensor(uniform(keys(0, perturbation.NUDGE, turn), 24)[0])
            nudge = 0.01 * torch.where(draws[::2] < 0.5, -1.0, 1.0) * (0.5 + 0.5 * draws[1::2])
            here = entropies(session.logits(x)).mean()
            there = entropies(session.logits(x, session.theta + nudge)).mean()
            logits = session.logits(x)
            # The statistics of this engine's only layer do not depend on theta, so their term cancels.
            velocity.mul_(0.9).add_((there - here) / nudge + 0.4 * (session.theta - session.source))
            session.theta.sub_(1e-4 * velocity)
        return logits

    _, result = against("zoa", plain, plain_step, {"prior": PRIOR})
    assert result.asked.backward == 0


def test_one_perturbation_is_the_gradient_on_average() -> None:
    """SPSA is unbiased to first order: the mean over many draws points down the true slope."""
    inputs, plain = stream(0, ROWS, features=6), Plain()
    plain.follow(tensor(inputs))
    total = np.zeros(12)
    for seed in range(200):
        chosen = recipe(
            "zoa", ENGINE, OPEN, batch_rows=ROWS, prior=PRIOR, lr=1, momentum=0, decay=0, size=1e-3, seed=seed
        )
        result = step(chosen, fresh(chosen, ENGINE, 1), inputs, ZEROS, ENGINE)
        total += ENGINE.source.theta - result.state[THETA][0]
    (gradient,) = torch.autograd.grad(entropies(plain.logits(tensor(inputs))).mean(), plain.theta)
    slope = gradient.numpy()
    cosine = total @ slope / (np.linalg.norm(total) * np.linalg.norm(slope))
    assert cosine > 0.9
