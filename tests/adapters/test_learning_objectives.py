"""Each loss of token scores: its cotangents against finite differences, and what its definition promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from acclimate.adapters.language import TokenRows, TokenScores
from acclimate.adapters.learning import objectives
from acclimate.adapters.learning.objectives import Loss
from acclimate.adapters.learning.units import NONE, Targets, Tree, stack

SESSIONS, ROWS, TOKENS = 3, 7, 9
GROUP = np.array([0, 2, 0, 1, 1, 2, 0])


def drawn(seed: int = 0) -> tuple[TokenScores, TokenRows, Targets]:
    """Rows of three sessions, most of whose units have three candidates; a number of tokens count."""
    random = np.random.default_rng(seed)
    lengths = random.integers(5, TOKENS + 1, ROWS)
    inside = np.arange(TOKENS) < lengths[:, np.newaxis]
    scores = TokenScores(
        (-random.gamma(2, 2, (ROWS, TOKENS)) * inside).astype(np.float64),
        (random.gamma(2, 1, (ROWS, TOKENS)) * inside).astype(np.float64),
    )
    branch = np.where(inside, random.integers(-1, 3, (ROWS, TOKENS)), NONE)
    branch[:, :3] = np.arange(3)
    targets = Targets(
        weight=(random.integers(0, 2, (ROWS, TOKENS)) * inside).astype(np.float32),
        branch=branch,
        gold=np.array([0, 2, 1, NONE, 1, 2, NONE]),
        anchor=(random.integers(0, 2, (ROWS, TOKENS)) * inside).astype(np.float32),
        advantage=random.normal(size=ROWS).astype(np.float32),
        rivals=np.zeros(ROWS, np.int64),
    )
    return scores, TokenRows(np.zeros((ROWS, TOKENS), np.int64), lengths, GROUP), targets


def with_base(scores: TokenScores, rows: TokenRows, targets: Targets, sessions: int) -> Loss:
    base = drawn(1)[0].logprob + 0.3
    return objectives.divergence(scores, base, rows, targets, sessions)


LOSSES: dict[str, Callable[[TokenScores, TokenRows, Targets, int], Loss]] = {
    "likelihood": objectives.likelihood,
    "contrast": objectives.contrast,
    "contrast, flattened": partial(objectives.contrast, temperature=3.0),
    "divergence": with_base,
    "policy": objectives.policy,
    "policy, forking and banded": partial(objectives.policy, forking=0.5, low=1.0, high=2.5, band=0.7),
}


@pytest.mark.parametrize("name", LOSSES)
def test_cotangents_are_those_of_finite_differences(name: str) -> None:
    scores, rows, targets = drawn()
    loss, random = LOSSES[name], np.random.default_rng(2)
    cotangents = loss(scores, rows, targets, SESSIONS).cotangents
    for _ in range(10):
        ways = [random.normal(size=(ROWS, TOKENS)) for _ in range(2)]
        # Which tokens fork is no function of the scores, so their order has to stay.
        step = 1e-4
        up, down = (
            loss(
                TokenScores(scores.logprob + sign * step * ways[0], scores.entropy + sign * step * ways[1]),
                rows,
                targets,
                SESSIONS,
            ).value.sum(dtype=np.float64)
            for sign in (1, -1)
        )
        slope = float((cotangents.logprob * ways[0]).sum() + (cotangents.entropy * ways[1]).sum())
        assert (up - down) / (2 * step) == pytest.approx(slope, rel=2e-2, abs=2e-2)


def test_perplexity_of_inputs_has_the_gradient_of_the_weights_held_fixed() -> None:
    scores, rows, targets = drawn()
    loss = objectives.input_perplexity(scores, rows, targets, SESSIONS)
    weight = targets.weight / targets.weight.sum(axis=1, keepdims=True)
    mean = -(weight * scores.logprob).sum(axis=1)
    chosen = np.where(mean > 3, 0.1 * np.exp(mean - 3), 0) / np.bincount(GROUP)[GROUP]
    assert (mean > 3).any()
    assert (mean <= 3).any()
    np.testing.assert_allclose(loss.cotangents.logprob, -chosen[:, np.newaxis] * weight, rtol=1e-5)
    np.testing.assert_allclose(loss.value, np.bincount(GROUP, chosen * mean), rtol=1e-5)


@pytest.mark.parametrize("name", [*LOSSES, "perplexity"])
def test_no_session_touches_another(name: str) -> None:
    loss = LOSSES.get(name, objectives.input_perplexity)
    scores, rows, targets = drawn()
    before = loss(scores, rows, targets, SESSIONS)
    mine = GROUP == 1
    changed = TokenScores(*(np.where(mine[:, np.newaxis], part, part * 1.7 - 0.1) for part in _parts(scores)))
    after = loss(changed, rows, targets, SESSIONS)
    assert before.value[1] == after.value[1]
    np.testing.assert_array_equal(before.cotangents.logprob[mine], after.cotangents.logprob[mine])
    np.testing.assert_array_equal(before.cotangents.entropy[mine], after.cotangents.entropy[mine])


def _parts(scores: TokenScores) -> tuple[np.ndarray, np.ndarray]:
    return scores.logprob, scores.entropy


def test_likelihood_is_the_mean_over_the_tokens_that_count() -> None:
    scores, rows, targets = drawn()
    value = objectives.likelihood(scores, rows, targets, SESSIONS).value
    for session in range(SESSIONS):
        own = session == GROUP
        counted = targets.weight[own] > 0
        assert value[session] == pytest.approx(-scores.logprob[own][counted].mean(), rel=1e-5)


def test_contrast_is_the_cross_entropy_of_the_candidates() -> None:
    scores, rows, targets = drawn()
    value = objectives.contrast(scores, rows, targets, SESSIONS).value
    own = [2, 0]  # the rows of session 0 that have candidates
    losses = []
    for row in own:
        z = np.array([scores.logprob[row][targets.branch[row] == k].sum() for k in range(3)])
        losses.append(np.log(np.exp(z - z.max()).sum()) + z.max() - z[targets.gold[row]])
    free = targets.weight[6] > 0
    assert value[0] == pytest.approx(np.mean(losses) - scores.logprob[6][free].mean(), rel=1e-4)


def test_divergence_is_zero_at_the_source_and_nowhere_below() -> None:
    scores, rows, targets = drawn()
    same = objectives.divergence(scores, scores.logprob, rows, targets, SESSIONS)
    assert not same.value.any()
    assert not same.cotangents.logprob.any()
    assert (with_base(scores, rows, targets, SESSIONS).value >= 0).all()


def test_a_text_of_no_advantage_is_not_pushed() -> None:
    scores, rows, targets = drawn()
    level = replace(targets, advantage=np.zeros(ROWS, np.float32))
    assert not objectives.policy(scores, rows, level, SESSIONS).cotangents.logprob.any()


def test_samples_are_units_with_candidates_and_branches_of_others() -> None:
    scores, _, targets = drawn()
    losses, tokens, row = objectives.sample_losses(scores, targets)
    assert sorted(set(row)) == sorted(set(range(ROWS)))
    contrasted = np.flatnonzero(targets.gold != NONE)
    assert row[: len(contrasted)].tolist() == contrasted.tolist()
    branches = [(at, b) for at in (3, 6) for b in np.unique(targets.branch[at][targets.weight[at] > 0])]
    assert len(losses) == len(contrasted) + len(branches)
    at, b = branches[0]
    counted = (targets.branch[at] == b) & (targets.weight[at] > 0)
    assert losses[len(contrasted)] == pytest.approx(-scores.logprob[at][counted].mean(), rel=1e-5)
    assert tokens[len(contrasted)] == counted.sum()


def test_choices_of_units_with_candidates_are_their_contrast() -> None:
    scores, _, targets = drawn()
    found = objectives.choices(scores, targets)
    contrasted = np.flatnonzero(targets.gold != NONE)
    assert found.row.tolist() == contrasted.tolist()
    np.testing.assert_allclose(found.guess, 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(
        found.contrast, objectives.sample_losses(scores, targets)[0][: len(contrasted)], rtol=1e-5
    )
    each = objectives.candidate_scores(scores, targets, 3)[contrasted]
    assert found.right.tolist() == (each.argmax(axis=1) == targets.gold[contrasted]).tolist()


def test_choices_of_a_tree_are_one_for_each_question() -> None:
    """Two questions: the first with two rivals, one of them likelier; the second with one rival, as likely."""
    tree = Tree()
    trunk = tree.add(np.zeros(1, np.int64))
    for branch, tokens in ((0, 2), (1, 1), (2, 1), (3, 1), (4, 2)):
        tree.add(np.zeros(tokens, np.int64), trunk, weight=float(branch % 3 == 0), branch=branch)
    units = stack([tree.unit(rivals=3)])
    rows, targets = units.take(np.zeros(1, np.intp), np.zeros(1, np.intp))
    assert rows.scored is not None
    assert rows.scored.tolist() == [[False] + [True] * 7]
    logprob = np.array([[0, -1, -1, -0.5, -4, -2, -1, -1]], np.float32)
    found = objectives.choices(TokenScores(logprob, np.zeros_like(logprob)), targets)
    z = np.array([-2, -0.5, -4])
    np.testing.assert_allclose(found.contrast, [np.log(np.exp(z).sum()) + 2, np.log(2)], rtol=1e-5)
    np.testing.assert_allclose(found.guess, [1 / 3, 1 / 2], rtol=1e-6)
    assert found.right.tolist() == [False, False], "a tie is not right"
    assert found.row.tolist() == [0, 0]


def test_without_candidates_there_is_no_choice() -> None:
    scores, _, targets = drawn()
    found = objectives.choices(scores, replace(targets, gold=np.full(ROWS, NONE)))
    assert len(found.contrast) == len(found.right) == len(found.guess) == len(found.row) == 0
