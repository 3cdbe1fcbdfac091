"""How requests are cut: no session is torn where its rows depend on each other, and nothing gets lost or moved."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.requests import Forward, Frozen, Gradient, Rows
from acclimate.runtime.engines.reference import ReferenceEngine, reference_engine
from acclimate.runtime.scheduler.drive import WHOLE_SESSIONS, Slicing, answer

ENGINE = reference_engine()
WHOLE = Slicing(10_000, lambda: None)


def rows_of(group: list[int], alpha: float) -> Rows:
    count, source = len(group), ENGINE.source
    return Rows(
        np.random.default_rng(count).normal(size=(count, 8)).astype(np.float32),
        np.repeat(source.theta[np.newaxis], count, axis=0),
        np.repeat(source.stats[np.newaxis], count, axis=0),
        np.array(group, np.intp),
        np.full(count, alpha, np.float32),
    )


class Recording:
    """The reference engine, noting the groups of each call."""

    def __init__(self, engine: ReferenceEngine) -> None:
        self.engine = engine
        self.calls: list[list[int]] = []

    def forward(self, request: Forward):
        self.calls.append(request.rows.group.tolist())
        return self.engine.forward(request)

    def vjp(self, request: Gradient):
        self.calls.append(request.rows.group.tolist())
        return self.engine.vjp(request)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 6), st.sampled_from([0.0, 0.5]))
def test_a_cut_request_is_answered_like_a_whole_one(group: list[int], size: int, alpha: float) -> None:
    rows, recording = rows_of(group, alpha), Recording(ENGINE)
    whole: Any = answer(Forward(rows), ENGINE, WHOLE)
    cut: Any = answer(Forward(rows), recording, Slicing(size, lambda: None))
    np.testing.assert_allclose(cut.logits, whole.logits, rtol=1e-5, atol=1e-6)
    if alpha > 0:
        np.testing.assert_allclose(cut.batch_stats, whole.batch_stats, rtol=1e-5, atol=1e-6)
    cotangent = np.random.default_rng(1).normal(size=(len(group), 4)).astype(np.float32)
    one: Any = answer(Gradient(rows, cotangent), ENGINE, WHOLE)
    other: Any = answer(Gradient(rows, cotangent), recording, Slicing(size, lambda: None))
    np.testing.assert_allclose(other.grad_theta, one.grad_theta, rtol=1e-5, atol=1e-6)
    assert sorted(chain.from_iterable(recording.calls)) == sorted(group + group)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 6))
def test_sessions_whose_rows_depend_on_each_other_stay_whole(group: list[int], size: int) -> None:
    recording, pauses = Recording(ENGINE), []
    answer(Forward(rows_of(group, 0.5)), recording, Slicing(size, lambda: pauses.append(1)))
    assert len(pauses) == len(recording.calls)
    seen: set[int] = set()
    for call in recording.calls:
        assert not seen & set(call), "a session was in two calls"
        assert len(call) <= WHOLE_SESSIONS * size or len(set(call)) == 1
        seen |= set(call)


def test_independent_rows_go_in_slices_of_the_size_asked_for() -> None:
    recording = Recording(ENGINE)
    answer(Forward(rows_of([0] * 11, 0.0)), recording, Slicing(4, lambda: None))
    assert [len(call) for call in recording.calls] == [4, 4, 3]


def test_the_source_answers_its_canaries_once() -> None:
    class Counting:
        def __init__(self) -> None:
            self.engine, self.rows = reference_engine(), 0
            self.source = self.engine.source

        def frozen(self, inputs):
            self.rows += len(inputs)
            return self.engine.frozen(inputs)

    counting = Counting()
    canaries = counting.source.canary_inputs
    first: Any = answer(Frozen(canaries), counting, Slicing(3, lambda: None))
    again: Any = answer(Frozen(canaries), counting, Slicing(3, lambda: None))
    np.testing.assert_array_equal(again.logits, first.logits)
    np.testing.assert_allclose(first.logits, counting.engine.frozen(canaries), rtol=1e-6)
    assert counting.rows == len(canaries)
    answer(Frozen(canaries.copy()), counting, WHOLE)
    assert counting.rows == 2 * len(canaries), "whatever else equals them is asked all the same"
