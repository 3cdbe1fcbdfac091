"""The critic learns from labels only, and `tempo` is `eata` until there are some."""

import math

import numpy as np

from acclimate.adapters.critic import LABEL, LOGITS, MARGIN, NEXT, NONE, RATE, RELIABILITY, TEMPERATURE, Critic
from acclimate.adapters.fields import THETA
from acclimate.adapters.guards import Guards
from acclimate.adapters.moves.critical import BOLD
from acclimate.adapters.numerics import entropy
from acclimate.runtime.engines.reference import reference_engine
from tests.adapters.stepping import fresh, recipe, step, stream

CLASSES = 4
ENGINE = reference_engine(classes=CLASSES)
CRITIC = Critic(margin=0.4 * math.log(CLASSES), capacity=200)
BOTH = np.ones(2, np.bool_)


def start(critic: Critic = CRITIC, sessions: int = 2) -> dict[str, np.ndarray]:
    return {name: np.stack([value] * sessions) for name, value in critic.template(CLASSES).items()}


def answers(seed: int, rows: int, overconfidence: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax; then the logits are made too large by a factor."""
    draws = np.random.default_rng(seed)
    logits = draws.normal(size=(rows, CLASSES)) * 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([draws.choice(CLASSES, p=row) for row in p])
    return (logits * overconfidence).astype(np.float32), labels


def calibrated(logits: np.ndarray, labels: np.ndarray, group: np.ndarray) -> dict[str, np.ndarray]:
    state = start() | CRITIC.remember(start(), logits, labels, group)
    return state | CRITIC.recalibrate(state, BOTH)


def test_temperature_undoes_overconfidence_of_the_session_that_has_it() -> None:
    loud, loud_labels = answers(0, 180, 2.5)
    fair, fair_labels = answers(1, 180)
    state = calibrated(np.concatenate([loud, fair]), np.concatenate([loud_labels, fair_labels]), np.repeat([0, 1], 180))
    np.testing.assert_allclose(state[TEMPERATURE], [2.5, 1], rtol=0.25)


def test_the_margin_moves_to_where_answers_stop_being_right() -> None:
    """Below 0.3 nats all answers are right in session 0; in session 1 all are, whatever their entropy."""
    logits, _ = answers(2, 150)
    answer = logits.argmax(axis=1)
    right = entropy(logits) < 0.3
    early = np.where(right, answer, (answer + 1) % CLASSES)
    state = calibrated(np.tile(logits, (2, 1)), np.concatenate([early, answer]), np.repeat([0, 1], 150))
    below = [entropy(logits / t) < m for t, m in zip(state[TEMPERATURE], state[MARGIN], strict=True)]
    assert right[below[0]].mean() > 0.9
    assert below[0][right].mean() > 0.5
    assert below[1].mean() > 0.95


def test_a_class_whose_answers_are_wrong_counts_for_nothing() -> None:
    logits, _ = answers(3, 150)
    answer = logits.argmax(axis=1)
    labels = np.where(answer == 2, 0, answer)
    state = calibrated(logits, labels, np.zeros(150, np.intp))
    np.testing.assert_array_equal(state[RELIABILITY][0] > 0.9, [True, True, False, True])
    assert state[RELIABILITY][0, 2] == 0
    np.testing.assert_array_equal(state[RELIABILITY][1], 1)


def test_too_few_labels_and_sessions_that_are_not_due_change_nothing() -> None:
    logits, labels = answers(4, 120, 3)
    few = start() | CRITIC.remember(start(), logits[:7], labels[:7], np.zeros(7, np.intp))
    state = start() | CRITIC.remember(start(), logits, labels, np.repeat([0, 1], 60))
    for fields, due in ((few, BOTH), (state, np.array([False, True]))):
        fitted = CRITIC.recalibrate(fields, due)
        assert fitted[TEMPERATURE][0] == 1
        assert fitted[MARGIN][0] == np.float32(CRITIC.margin)
        np.testing.assert_array_equal(fitted[RELIABILITY][0], 1)
    assert fitted[TEMPERATURE][1] > 1


def test_the_memory_is_a_ring_of_the_latest_labels() -> None:
    critic = Critic(margin=0.5, capacity=5)
    state = start(critic, 1)
    expected: list[int] = []
    for size in (3, 4, 12, 2):
        labels = np.arange(size) % 6 - 2
        logits = np.repeat(labels[:, np.newaxis], CLASSES, axis=1).astype(np.float32)
        state |= critic.remember(state, logits, labels, np.zeros(size, np.intp))
        expected = (expected + [int(label) for label in labels if label >= 0])[-5:]
        ring = [int(state[LABEL][0, (state[NEXT][0] - 1 - i) % 5]) for i in range(len(expected))]
        assert ring[::-1] == expected
        used = state[LABEL][0] >= 0
        np.testing.assert_array_equal(state[LOGITS][0, used, 0], state[LABEL][0, used])


def test_labels_that_stop_are_forgotten_in_time_and_by_their_session_alone() -> None:
    critic = Critic(margin=CRITIC.margin, capacity=64, patience=3)
    logits, labels = answers(5, 60, 3)
    group, told = np.repeat([0, 1], 30), np.repeat([True, False], 30)
    state = start(critic) | critic.remember(start(critic), logits, labels, group)
    state |= critic.recalibrate(state, BOTH)
    for turn in range(4):
        np.testing.assert_array_equal(critic.speaks(state), True)
        state |= critic.remember(state, logits, np.where(told, labels, NONE), group)
        state |= critic.recalibrate(state, BOTH if turn == 3 else ~BOTH)
    np.testing.assert_array_equal(critic.speaks(state), [True, False])
    assert (state[TEMPERATURE][0] > 1, state[TEMPERATURE][1]) == (True, 1)
    assert state[MARGIN][1] == np.float32(CRITIC.margin)
    np.testing.assert_array_equal(state[RELIABILITY][1], 1)


def test_how_often_labels_come_is_told_of_each_session() -> None:
    critic, state = Critic(margin=0.5), start(Critic(margin=0.5))
    for _ in range(200):
        logits, group = np.zeros((8, CLASSES), np.float32), np.repeat([0, 1], 4)
        state |= critic.remember(state, logits, np.array([0, 1, 2, NONE, 0, NONE, NONE, NONE]), group)
    np.testing.assert_allclose(state[RATE], [3, 1], rtol=1e-4)


def test_a_session_with_labels_steps_boldly_and_its_neighbour_as_eata_does() -> None:
    one, other = recipe("tempo", ENGINE), recipe("eata", ENGINE)
    mixed, alone, theirs = fresh(one, ENGINE, 2), fresh(one, ENGINE, 1), fresh(other, ENGINE, 1)
    group, half = np.repeat([0, 1], 16), np.zeros(16, np.intp)
    for turn in range(6):
        inputs = stream(turn, 32)
        labels = np.where(group == 0, ENGINE.frozen(inputs).argmax(axis=1), NONE)
        mixed = step(one, mixed, inputs, group, ENGINE, labels=labels).state
        alone = step(one, alone, inputs[:16], half, ENGINE, labels=labels[:16]).state
        theirs = step(other, theirs, inputs[16:], half, ENGINE, labels=labels[16:]).state
        np.testing.assert_allclose(mixed[THETA][0], alone[THETA][0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mixed[THETA][1], theirs[THETA][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mixed[BOLD], [True, False])


def test_without_feedback_tempo_is_eata_to_the_bit() -> None:
    one, other = recipe("tempo", ENGINE), recipe("eata", ENGINE)
    ours, theirs = fresh(one, ENGINE, 2), fresh(other, ENGINE, 2)
    group, none = np.repeat([0, 1], 16), np.full(32, -1)
    for turn in range(20):
        inputs = stream(turn, 32)
        ours = step(one, ours, inputs, group, ENGINE, labels=none).state
        theirs = step(other, theirs, inputs, group, ENGINE, labels=none).state
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value, err_msg=name)
    assert not np.array_equal(ours[THETA][0], ENGINE.source.theta)


def run_stream(name: str, share: float, seed: int = 0, **parameters: float) -> list[float]:
    """Accuracy of each quarter of a long stream in which three features have turned to noise."""
    draws = np.random.default_rng(seed)
    guards = Guards(trust_radius=5, canary_every=0)
    chosen = recipe(name, ENGINE, guards, batch_rows=32, lr=1e-2, beta=0.01, epsilon=1, **parameters)
    state, right = fresh(chosen, ENGINE, 1), []
    for _ in range(160):
        clean = draws.normal(size=(32, 8)).astype(np.float32)
        truth = ENGINE.frozen(clean).argmax(axis=1)
        seen = np.where(np.arange(8) < 3, draws.normal(size=(32, 8)), clean).astype(np.float32)
        labels = np.where(draws.random(32) < share, truth, -1)
        result = step(chosen, state, seen, np.zeros(32, np.intp), ENGINE, labels=labels)
        state = result.state
        right.append(float((result.logits.argmax(axis=1) == truth).mean()))
    return [float(np.mean(part)) for part in np.split(np.array(right), 4)]


def test_with_feedback_tempo_keeps_improving_where_eata_does_not() -> None:
    """What the noise makes the model sure of is wrong, and no entropy says so; one label in ten does."""
    alone, helped = run_stream("eata", 0.1), run_stream("tempo", 0.1, feedback=1)
    assert helped[-1] > helped[0] + 0.03
    assert helped[-1] > alone[-1] + 0.05
    assert alone[-1] < alone[0] + 0.03
