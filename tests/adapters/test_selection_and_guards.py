"""EATA's two filters, sentence by sentence, and the guards of the transaction."""

import numpy as np
import pytest

from acclimate.adapters import guards as guard
from acclimate.adapters.bank import State
from acclimate.adapters.numerics import entropy, softmax
from acclimate.adapters.outcome import SENTENCES, Outcome
from acclimate.adapters.selection import EMA, SEEN, ReliableAndNew

FILTER = ReliableAndNew(margin=0.5, epsilon=0.6)


def sure_of(label: int, classes: int = 4, by: float = 6.0) -> np.ndarray:
    logits = np.zeros(classes, np.float32)
    logits[label] = by
    return logits


def fresh(groups: int, classes: int = 4) -> dict[str, np.ndarray]:
    return {name: np.stack([value] * groups) for name, value in FILTER.template(classes).items()}


def select(state: dict[str, np.ndarray], logits: np.ndarray, group: list[int]):
    return FILTER.select(state, logits, entropy(logits), np.array(group, np.intp))


def test_uncertain_predictions_are_left_out_and_sure_ones_weigh_more() -> None:
    logits = np.stack([sure_of(0, by=6), sure_of(1, by=4.5), np.zeros(4, np.float32)])
    weight = select(fresh(1), logits, [0, 0, 0]).weight
    assert weight[0] > weight[1] > 1
    assert weight[2] == 0
    np.testing.assert_allclose(weight[0], np.exp(0.5 - entropy(logits)[0]), rtol=1e-6)


def test_first_mean_is_that_of_the_reliable_predictions() -> None:
    logits = np.stack([sure_of(0), sure_of(1), np.zeros(4, np.float32)])
    state = select(fresh(1), logits, [0, 0, 0]).state
    assert state[SEEN][0]
    np.testing.assert_allclose(state[EMA][0], softmax(logits[:2]).mean(axis=0), rtol=1e-6)


def test_predictions_like_the_running_mean_are_redundant() -> None:
    state = select(fresh(1), sure_of(0)[np.newaxis], [0]).state
    again = select(state, np.stack([sure_of(0), sure_of(2)]), [0, 0])
    assert again.weight[0] == 0
    assert again.weight[1] > 0
    expected = 0.9 * state[EMA][0] + 0.1 * softmax(sure_of(2)[np.newaxis])[0]
    np.testing.assert_allclose(again.state[EMA][0], expected, rtol=1e-5)


def test_nothing_selected_moves_nothing() -> None:
    state = select(fresh(1), sure_of(0)[np.newaxis], [0]).state
    again = select(state, np.zeros((3, 4), np.float32), [0, 0, 0])
    assert not again.weight.any()
    np.testing.assert_array_equal(again.state[EMA], state[EMA])


def test_sessions_filter_by_their_own_memory() -> None:
    state = select(fresh(2), sure_of(0)[np.newaxis], [1]).state
    np.testing.assert_array_equal(state[SEEN], [False, True])
    both = select(state, np.stack([sure_of(0), sure_of(0)]), [0, 1])
    assert both.weight[0] > 0
    assert both.weight[1] == 0


def test_spread_counts_classes() -> None:
    one = np.stack([sure_of(2)] * 8)
    four = np.stack([sure_of(i % 4) for i in range(8)])
    logits, group = np.concatenate([one, four]), np.repeat([0, 1], 8)
    np.testing.assert_allclose(guard.spread(logits, group, 2), [1, 4], rtol=1e-6)


def test_finite_looks_at_every_field_of_every_session() -> None:
    state: State = {"a": np.ones((3, 2), np.float32), "b": np.ones((3, 2, 2), np.float32), "n": np.ones(3, np.int64)}
    state["b"][1, 0, 1] = np.inf
    np.testing.assert_array_equal(guard.finite(state), [True, False, True])


def test_the_first_failed_guard_names_the_outcome() -> None:
    verdict = guard.worst(
        [
            (Outcome.ROLLED_BACK_NONFINITE, np.array([True, False, True])),
            (Outcome.ROLLED_BACK_COLLAPSE, np.array([True, False, False])),
        ],
        3,
    )
    np.testing.assert_array_equal(
        verdict, [Outcome.APPLIED, Outcome.ROLLED_BACK_NONFINITE, Outcome.ROLLED_BACK_COLLAPSE]
    )


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_sentence_a_kind_and_a_reason(outcome: Outcome) -> None:
    assert outcome.sentence == SENTENCES[outcome]
    assert outcome.kind in {"applied", "skipped", "rolled_back"}
    assert (outcome.reason == "") == (outcome is Outcome.APPLIED)
