"""What lessons are made of: the optimiser and its schedule against torch, units, votes, transformations, bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acclimate.adapters.errors import RecipeError
from acclimate.adapters.learning import compose, transformations, votes
from acclimate.adapters.learning.recipes import (
    LANGUAGE_BOUNDS,
    LANGUAGE_RECIPES,
    language_lesson,
    language_parameters,
    language_values,
)
from acclimate.adapters.learning.schedule import factor
from acclimate.adapters.learning.units import NONE, Example, Tree, stack
from acclimate.adapters.optimisers import AdamW


def ids(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


def example(prompt: str, completion: str, *candidates: str) -> Example:
    return Example(ids(prompt), ids(completion), tuple(ids(candidate) for candidate in candidates))


def text(unit_ids: np.ndarray) -> str:
    return bytes(unit_ids.astype(np.uint8)).decode()


def test_adamw_is_that_of_torch() -> None:
    """Around a source at zero: elsewhere decay pulls toward the source, where torch pulls toward zero."""
    random = np.random.default_rng(0)
    theta = random.normal(size=(2, 5)).astype(np.float32)
    rule, zero = AdamW(lr=0.03, decay=0.1), np.zeros(5, np.float32)
    state = rule.template(5, 2)
    theirs = torch.tensor(theta, requires_grad=True)
    optimiser = torch.optim.AdamW([theirs], lr=0.03, weight_decay=0.1)
    for _ in range(20):
        gradient = random.normal(size=(2, 5)).astype(np.float32)
        theta, state = rule.next(state, theta, gradient, zero, np.ones(2, np.float32))
        theirs.grad = torch.tensor(gradient)
        optimiser.step()
    np.testing.assert_allclose(theta, theirs.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_a_session_at_half_the_rate_moves_half_as_far() -> None:
    rule, zero = AdamW(lr=0.1), np.zeros((2, 3), np.float32)
    theta, _ = rule.next(rule.template(3, 2), zero, np.ones((2, 3), np.float32), zero[0], np.array([1.0, 0.5]))
    np.testing.assert_allclose(theta[1], theta[0] / 2, rtol=1e-6)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    steps = np.full(20, 20)
    factors = factor(np.arange(20), steps, 0.2, cosine=True)
    assert factors[0] == pytest.approx(0.25)
    assert factors.argmax() in (3, 4)
    assert (np.diff(factors[4:]) < 0).all()
    assert 0 <= factors[-1] < 0.05
    assert (factor(np.arange(20), steps, 0.2, cosine=False)[4:] == 1).all()


def test_candidates_are_branches_of_one_prompt() -> None:
    (unit,) = compose.pairs([example("is it? ", "no", "yes", "no")], np.random.default_rng(0), 100)
    assert text(unit.ids) == "is it? yesno"
    assert unit.gold == 1
    assert unit.parent[7] == 6
    assert unit.parent[10] == 6
    assert text(unit.ids[unit.weight > 0]) == "no"
    assert text(unit.ids[unit.branch == 0]) == "yes"


def test_the_loss_of_demonstrations_is_on_completions_alone() -> None:
    shown = [example(f"q{n} ", f"a{n} ") for n in range(4)]
    units = compose.demonstrations(shown, np.random.default_rng(0), 100, 3)
    assert len(units) == 3
    assert len({text(unit.ids) for unit in units}) > 1
    for unit in units:
        assert sorted(text(unit.ids[unit.weight > 0]).split()) == ["a0", "a1", "a2", "a3"]
    assert max(u.tokens for u in compose.demonstrations(shown, np.random.default_rng(0), 13, 3)) <= 13


def test_held_out_examples_are_asked_after_the_shown_ones() -> None:
    (unit,) = compose.in_context([example("q0 ", "a0 ")], [example("q1 ", "a1 "), example("q2 ", "a2 ")], 100)
    assert text(unit.ids) == "q0 a0 q1 a1 q2 a2 "
    assert unit.parent[12] == 5, "the second question does not see the first"
    assert text(unit.ids[unit.weight > 0]) == "a1 a2 "
    split = compose.in_context([example("q0 ", "a0 ")], [example("q1 ", "a1 "), example("q2 ", "a2 ")], 14)
    assert [text(unit.ids) for unit in split] == ["q0 a0 q1 a1 ", "q0 a0 q2 a2 "]


def test_answers_that_several_share_stand_beside_the_right_one() -> None:
    shown = [example("q0 ", "yes "), example("q1 ", "no "), example("q2 ", "yes ")]
    (unit,) = compose.in_context(shown, [example("q3 ", "no "), example("q4 ", "odd ")], 200)
    assert unit.rivals == 3
    assert {int(b): text(unit.ids[unit.branch == b]) for b in np.unique(unit.branch[unit.branch >= 0])} == {
        0: "no ",
        1: "yes ",
        3: "odd ",
        4: "yes ",
        5: "no ",
    }
    assert text(unit.ids[unit.weight > 0]) == "no odd ", "rivals do not count in the loss"
    first = [int(np.flatnonzero(unit.branch == branch)[0]) for branch in (3, 4, 5)]
    assert len(set(unit.parent[first])) == 1, "they come after the same question"
    assert compose.in_context(shown, [example("q3 ", "no ")], 20)[0].rivals == 2
    different = [example("q3 ", "b "), example("q4 ", "c "), example("q5 ", "d ")]
    assert compose.in_context(shown, different, 200)[0].rivals == 0, "most answers are given once"
    assert compose.in_context(shown, [example("q3 ", "no ")], 8)[0].rivals == 0, "no room for them"


def test_known_candidates_are_the_rivals() -> None:
    (unit,) = compose.in_context([example("q0 ", "x ")], [example("q1 ", "b ", "a ", "b ", "c ")], 100)
    assert [text(unit.ids[unit.branch == b]) for b in range(3)] == ["b ", "a ", "c "]


def test_documents_come_in_windows() -> None:
    units = compose.documents([example("abcdefghij", "")], np.random.default_rng(0), 4)
    assert [text(unit.ids) for unit in units] == ["abcd", "efgh", "ij"]
    assert all(unit.weight.all() for unit in units)


def test_a_stack_takes_what_is_asked_for() -> None:
    tree, chain = Tree(), Tree()
    trunk = tree.add(ids("ab"))
    tree.add(ids("c"), trunk, weight=1.0, branch=0)
    tree.add(ids("d"), trunk, weight=0.0, branch=1)
    chain.add(ids("xy"), chain.add(ids("w")), weight=1.0)
    both = stack([tree.unit(gold=0), chain.unit()])
    rows, targets = both.take(np.array([1]), np.array([5]))
    assert rows.parent is None
    assert rows.ids.shape == (1, 3)
    assert rows.scored is not None
    assert rows.scored.tolist() == [[False, True, True]]
    rows, targets = both.take(np.array([1, 0]), np.array([0, 1]))
    assert rows.parent is not None
    assert rows.parent[1].tolist() == [-1, 0, 1, 1]
    assert targets.gold.tolist() == [NONE, 0]


QUESTION = "Which is red?\nOptions:\n(A) grass\n(B) blood\n(C) snow"


def test_options_change_places_and_answers_go_with_them() -> None:
    assert transformations.options(QUESTION) == ["A", "B", "C"]
    turned = transformations.reorder(QUESTION, [2, 0, 1])
    assert turned == "Which is red?\nOptions:\n(A) snow\n(B) grass\n(C) blood"
    assert transformations.answer_there("B", [2, 0, 1]) == "C"
    assert transformations.answer_back("C", [2, 0, 1]) == "B"
    assert transformations.options("Is it?") == []
    with pytest.raises(ValueError, match="order"):
        transformations.reorder(QUESTION, [0, 0, 1])


def test_the_majority_answers_and_its_texts_are_worth_more() -> None:
    answers = ["4", "5", None, "4"]
    agreed, share = votes.majority(answers)
    assert (agreed, share) == ("4", 0.5)
    reward = votes.rewards(answers, agreed)
    assert reward.tolist() == [1, 0, 0, 1]
    worth = votes.advantages(reward)
    assert worth.mean() == pytest.approx(0, abs=1e-6)
    assert worth.std() == pytest.approx(1, abs=1e-5)
    assert not votes.advantages(np.ones(4, np.float32)).any()
    assert votes.majority(["a", "b"], [0.2, 0.9])[0] == "b"
    assert votes.majority([None]) == (None, 0.0)


def test_ways_to_ask_are_pooled_as_probabilities() -> None:
    sure, unsure = np.array([[0.0, -9.0]]), np.array([[-1.0, -0.9]])
    assert votes.vote(np.stack([sure, unsure, unsure])).argmax() == 0


def test_every_recipe_has_bounds_and_builds() -> None:
    for name in LANGUAGE_RECIPES:
        assert set(language_values(name)) <= set(LANGUAGE_BOUNDS)
        assert language_lesson(name, {}).name == name
        for key, value in language_values(name).items():
            low, high = LANGUAGE_BOUNDS[key]
            assert low <= value <= high, (name, key)


@pytest.mark.parametrize(
    ("name", "overrides", "match"),
    [
        ("tml", {}, "'tml' is unknown"),
        ("tlm", {"lr": 2.0}, r"lr is 2.0; it must lie in \[0, 1\]"),
        ("tlm", {"lr": float("nan")}, "lr is nan"),
        ("tlm", {"orders": 3}, "parameter 'orders' is unknown"),
        ("ttt", {"orders": 2.5}, "whole number"),
    ],
)
def test_what_a_recipe_does_not_take_is_refused(name: str, overrides: dict[str, float], match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        language_parameters(name, overrides)


def test_overrides_keep_their_types() -> None:
    assert language_values("supervised", {"contrast": 0.0, "epochs": 2.0}) | {"contrast": False, "epochs": 2} == (
        language_values("supervised", {"contrast": 0.0, "epochs": 2.0})
    )
