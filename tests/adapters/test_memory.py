"""The balanced memory against a plain list of items per class, and one claim of the paper per test."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.adapters.memory import AGE, FREE, INPUTS, LABEL, UNCERTAINTY, BalancedMemory, timeliness_weight
from acclimate.runtime.engines.reference import reference_engine

CLASSES, CAPACITY = 3, 7
SOURCE = reference_engine(features=2, classes=CLASSES).source
MEMORY = BalancedMemory(CAPACITY)


def fresh(sessions: int) -> dict[str, np.ndarray]:
    return {name: np.stack([value] * sessions) for name, value in MEMORY.template(SOURCE).items()}


def add(state, label, entropy, group=None, inputs=None):
    label = np.asarray(label, np.intp)
    group = np.zeros(len(label), np.intp) if group is None else np.asarray(group, np.intp)
    inputs = np.zeros((len(label), 2), np.float32) if inputs is None else inputs
    return MEMORY.add(state, inputs, label, np.asarray(entropy, np.float32), group, CLASSES)


class PlainMemory:
    """Algorithm 1 of the paper with a list per class; items are [input number, entropy, age]."""

    def __init__(self) -> None:
        self.kept: list[list[list]] = [[] for _ in range(CLASSES)]

    def score(self, entropy: float, age: int) -> float:
        return 1 / (1 + math.exp(-age / CAPACITY)) + entropy / math.log(CLASSES)

    def add(self, number: int, label: int, entropy: float) -> None:
        total = sum(map(len, self.kept))
        if len(self.kept[label]) < CAPACITY / CLASSES:
            most = max(map(len, self.kept))
            room = total < CAPACITY or self.remove([c for c in range(CLASSES) if len(self.kept[c]) == most], entropy)
        else:
            room = self.remove([label], entropy)
        if room:
            self.kept[label].append([number, entropy, 0])
        for item in (item for items in self.kept for item in items):
            item[2] += 1

    def remove(self, classes: list[int], entropy: float) -> bool:
        worst = max((self.score(e, a), c, i) for c in classes for i, (_, e, a) in enumerate(self.kept[c]))
        if worst[0] <= self.score(entropy, 0):
            return False
        del self.kept[worst[1]][worst[2]]
        return True


@settings(max_examples=60)
@given(seed=st.integers(0, 2**16), rows=st.integers(1, 40), cut=st.integers(0, 40))
def test_it_keeps_what_plain_lists_keep(seed: int, rows: int, cut: int) -> None:
    draws = np.random.default_rng(seed)
    label, entropy = draws.choice(CLASSES, size=(2, rows), p=[0.6, 0.3, 0.1]), draws.uniform(0, 1.09, size=(2, rows))
    entropy = entropy.astype(np.float32)
    inputs = np.arange(4 * rows, dtype=np.float32).reshape(2, rows, 2)
    state = fresh(2)
    for part in (slice(0, min(cut, rows)), slice(min(cut, rows), rows)):
        size = len(range(*part.indices(rows)))
        group = np.tile([0, 1], size)
        order = [np.stack([array[0, part], array[1, part]], axis=1) for array in (label, entropy)]
        samples = np.stack([inputs[0, part], inputs[1, part]], axis=1).reshape(-1, 2)
        state = add(state, order[0].reshape(-1), order[1].reshape(-1), group, samples)
    for session in (0, 1):
        plain = PlainMemory()
        for row in range(rows):
            plain.add(2 * (session * rows + row), int(label[session, row]), float(entropy[session, row]))
        expected = {(item[0], c, item[2]) for c in range(CLASSES) for item in plain.kept[c]}
        used = state[LABEL][session] != FREE
        fields = (state[INPUTS][session, used, 0], state[LABEL][session, used], state[AGE][session, used])
        assert {(int(i), int(c), int(a)) for i, c, a in zip(*fields, strict=True)} == expected


def test_no_class_takes_more_than_its_share() -> None:
    state = add(fresh(1), [0] * 20, np.linspace(1, 0.1, 20))
    assert (state[LABEL][0] == 0).sum() == math.ceil(CAPACITY / CLASSES)


def test_a_newcomer_replaces_the_worst_of_its_class_and_only_if_it_is_better() -> None:
    full = add(fresh(1), [0, 0, 0], [0.2, 0.9, 0.4])
    better = add(full, [0], [0.3])
    np.testing.assert_allclose(np.sort(better[UNCERTAINTY][0][better[LABEL][0] == 0]), [0.2, 0.3, 0.4])
    worse = add(full, [0], [1.09])
    np.testing.assert_array_equal(worse[UNCERTAINTY], full[UNCERTAINTY])
    np.testing.assert_array_equal(worse[AGE][0][worse[LABEL][0] == 0], full[AGE][0][full[LABEL][0] == 0] + 1)


def test_the_old_state_is_left_alone() -> None:
    state = fresh(1)
    add(state, [0, 1], [0.1, 0.2], inputs=np.ones((2, 2), np.float32))
    assert (state[LABEL] == FREE).all()
    assert not state[INPUTS].any()


@pytest.mark.parametrize(("age", "weight"), [(0, 0.5), (7, math.exp(-1) / (1 + math.exp(-1)))])
def test_old_samples_count_less(age: int, weight: float) -> None:
    np.testing.assert_allclose(timeliness_weight(np.array([age]), CAPACITY), [weight], rtol=1e-6)
