"""Recipes that look at augmented views, against torch loops written from METHODS' equations; the views are shared."""

import math

import numpy as np
import torch

from acclimate.adapters.augmentations import Space, mixed_view, shuffled_patches, strong_view
from acclimate.adapters.fields import THETA
from acclimate.adapters.moves import diversity, structure, teacher, views
from acclimate.adapters.randomness import keys, uniform
from tests.adapters.plain import (
    ENGINE,
    OPEN,
    PRIOR,
    ROWS,
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

SPACE = Space.of(ENGINE.source.canary_inputs)
CLASSES = 5


def test_deyo_follows_torch() -> None:
    plain = Plain()
    adam = torch.optim.Adam([plain.theta], lr=1e-2)
    learnt = []

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        x = tensor(inputs)
        session.follow(x)
        logits = session.logits(x)
        loss = entropies(logits)
        shuffled = shuffled_patches(inputs, keys(0, structure.SHUFFLE, turn, np.arange(ROWS)), SPACE)
        p, after = logits.softmax(1).detach(), session.logits(tensor(shuffled)).softmax(1).detach()
        label = p.argmax(1, keepdim=True)
        fall = (p.gather(1, label) - after.gather(1, label))[:, 0]
        keep = (loss.detach() < 0.5 * math.log(CLASSES)) & (fall > 0.2)
        learnt.append(int(keep.sum()))
        if keep.any():
            weight = torch.exp(0.4 * math.log(CLASSES) - loss.detach()) + torch.exp(fall)
            descend(adam, (weight * loss)[keep].mean())
        return logits

    _, result = against("deyo", plain, plain_step, {"lr": 1e-2, "prior": PRIOR})
    assert result.selected[0] == learnt[-1]
    assert 0 < min(learnt) <= max(learnt) < ROWS


def test_roid_follows_torch() -> None:
    plain = Plain()
    adam = torch.optim.Adam([plain.theta], lr=1e-2)
    memory = {"mean": torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)}

    def scaled(values: torch.Tensor) -> torch.Tensor:
        return (values - values.min()) / (values.max() - values.min())

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        x = tensor(inputs)
        session.follow(x)
        logits = session.logits(x)
        p = logits.softmax(1)
        diverse = scaled(1 - torch.cosine_similarity(memory["mean"][None], p.detach()))
        weight = torch.exp(diverse * scaled(-entropies(logits).detach()) * 3)
        keep = diverse >= diverse.mean()
        memory["mean"] = 0.9 * memory["mean"] + 0.1 * p.detach().mean(0)
        clipped = p.clamp(max=0.99)
        ratio = -(clipped * torch.log(clipped / (1 - clipped) + 1e-5)).sum(1)
        view = strong_view(inputs, keys(0, diversity.VIEW, turn, np.arange(ROWS)), SPACE)
        other = session.logits(tensor(view))
        pair = 0.5 * cross_entropies(other, logits) + 0.5 * cross_entropies(logits, other)
        descend(adam, (weight * (ratio + pair))[keep].sum() / ROWS)
        with torch.no_grad():
            session.theta.copy_(0.99 * session.theta + 0.01 * session.source)
        mean = p.mean(0)
        smooth = max(1 / ROWS, 1 / CLASSES) / mean.max()
        return logits + torch.log((mean + smooth) / (1 + smooth * CLASSES))

    state, _ = against("roid", plain, plain_step, {"lr": 1e-2, "prior": PRIOR})
    np.testing.assert_allclose(state[diversity.MEAN][0], memory["mean"], rtol=1e-4)


def test_roid_through_batch_statistics_follows_torch() -> None:
    """Both looks are normalised with themselves, and gradients flow through that, as in the authors' code."""
    plain = Plain()
    adam = torch.optim.Adam([plain.theta], lr=1e-2)
    memory = {"mean": torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)}

    def scaled(values: torch.Tensor) -> torch.Tensor:
        return (values - values.min()) / (values.max() - values.min())

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> None:
        x = tensor(inputs)
        logits = session.logits(x, stats=session.blend(x, 1.0))
        p = logits.softmax(1)
        diverse = scaled(1 - torch.cosine_similarity(memory["mean"][None], p.detach()))
        weight = torch.exp(diverse * scaled(-entropies(logits).detach()) * 3)
        keep = diverse >= diverse.mean()
        memory["mean"] = 0.9 * memory["mean"] + 0.1 * p.detach().mean(0)
        clipped = p.clamp(max=0.99)
        ratio = -(clipped * torch.log(clipped / (1 - clipped) + 1e-5)).sum(1)
        view = tensor(strong_view(inputs, keys(0, diversity.VIEW, turn, np.arange(ROWS)), SPACE))[keep]
        other = session.logits(view, stats=session.blend(view, 1.0))
        pair = 0.5 * cross_entropies(other, logits[keep]) + 0.5 * cross_entropies(logits[keep], other)
        descend(adam, ((weight * ratio)[keep] + weight[keep] * pair).sum() / ROWS)
        with torch.no_grad():
            session.theta.copy_(0.99 * session.theta + 0.01 * session.source)
        session.follow(x, prior=0)

    against("roid", plain, plain_step, {"lr": 1e-2, "prior": 0, "through_statistics": 1})


def test_cotta_follows_torch() -> None:
    plain = Plain()
    student = parameter(ENGINE.source.theta)
    adam = torch.optim.Adam([student], lr=1e-2)
    unsure = []

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        x = tensor(inputs)
        stats = session.blend(x, ROWS / (ROWS + PRIOR))
        with torch.no_grad():
            confidence = session.logits(x, session.source, stats).softmax(1).max(1).values.mean()
            unsure.append(bool(confidence < 0.9))
            target = session.logits(x, stats=stats)
            if unsure[-1]:
                target = torch.zeros_like(target)
                for view in range(4):
                    key = keys(0, teacher.VIEW, view, turn, np.arange(ROWS))
                    seen = tensor(strong_view(inputs, key, SPACE))
                    target += session.logits(seen, stats=session.blend(seen, ROWS / (ROWS + PRIOR))) / 4
        descend(adam, cross_entropies(session.logits(x, student, stats), target).mean())
        with torch.no_grad():
            session.theta.copy_(0.9 * session.theta + 0.1 * student)
            back = uniform(keys(0, teacher.MASK, turn), 12)[0] < 0.2
            student[tensor(back).bool()] = session.source[tensor(back).bool()]
        session.follow(x)
        return target

    settings = {"lr": 1e-2, "prior": PRIOR, "inertia": 0.9, "confidence": 0.9, "views": 4, "restore": 0.2}
    state, _ = against("cotta", plain, plain_step, settings)
    np.testing.assert_allclose(state[teacher.STUDENT][0], student.detach(), rtol=1e-4, atol=1e-5)
    assert any(unsure)
    assert np.abs(state[THETA][0] - ENGINE.source.theta).max() > 1e-3


def test_petal_restores_the_least_important_and_pulls_the_rest() -> None:
    plain = Plain()
    student = parameter(ENGINE.source.theta)
    adam = torch.optim.Adam([student], lr=1e-2)

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        x = tensor(inputs)
        stats = session.blend(x, ROWS / (ROWS + PRIOR))
        target = session.logits(x, stats=stats).detach()
        loss = cross_entropies(session.logits(x, student, stats), target).mean()
        descend(adam, loss + 0.5 * ((student - session.source) ** 2).sum())
        fisher = student.grad**2
        with torch.no_grad():
            session.theta.copy_(0.9 * session.theta + 0.1 * student)
            back = fisher < torch.quantile(fisher, 0.3)
            student[back] = session.source[back]
        session.follow(x)
        return target

    settings = {"lr": 1e-2, "prior": PRIOR, "inertia": 0.9, "confidence": 0, "restore": 0.3, "beta": 0.5}
    # Teacher and student agree at first, and rounding would decide what is least important: start apart.
    with torch.no_grad():
        student += tensor(np.random.default_rng(0).normal(size=12) * 0.1)
    chosen = recipe("petal", ENGINE, OPEN, batch_rows=ROWS, **settings)
    state = fresh(chosen, ENGINE, 1) | {teacher.STUDENT: student.detach().numpy().astype(np.float32)[None]}
    for turn in range(4):
        inputs = stream(turn, ROWS, features=6)
        state = step(chosen, state, inputs, ZEROS, ENGINE).state
        plain_step(plain, inputs, turn)
        np.testing.assert_allclose(state[teacher.STUDENT][0], student.detach(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state[THETA][0], plain.theta.detach(), rtol=1e-4, atol=1e-5)
    assert (state[teacher.STUDENT][0] == ENGINE.source.theta).sum() == 4


def test_memo_answers_each_sample_at_its_own_parameters_and_forgets_them() -> None:
    plain = Plain()

    def plain_step(session: Plain, inputs: np.ndarray, turn: int) -> torch.Tensor:
        session.follow(tensor(inputs))
        answers = []
        for row in range(ROWS):
            theta = parameter(ENGINE.source.theta)
            copies = np.repeat(inputs[row : row + 1], 4, axis=0)
            seen = mixed_view(copies, keys(0, views.VIEW, turn, row, np.arange(4)), SPACE)
            mean = session.logits(tensor(seen), theta).softmax(1).mean(0)
            (-(mean * mean.log()).sum()).backward()
            answers.append(session.logits(tensor(inputs[row : row + 1]), theta - 0.05 * theta.grad))
        return torch.cat(answers)

    state, result = against("memo", plain, plain_step, {"lr": 0.05, "prior": PRIOR, "views": 4}, steps=3)
    np.testing.assert_array_equal(state[THETA][0], ENGINE.source.theta)
    assert result.asked.backward == 4 * ROWS
