"""Which requests make a batch: a table of cases, and what holds of every queue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.runtime.scheduler.decide import Plan, Waiting, next_batch


def queue(*entries: tuple[str, int, float]) -> list[Waiting]:
    return [Waiting(*entry) for entry in entries]


CASES = {
    "nothing waits": (queue(), 0.0, 4, 0.0, Plan(())),
    "one request, no delay": (queue(("a", 1, 0.0)), 0.0, 4, 0.0, Plan((0,))),
    "one request waits for company": (queue(("a", 1, 1.0)), 1.0, 4, 0.5, Plan((), 1.5)),
    "and runs alone when none comes": (queue(("a", 1, 1.0)), 1.5, 4, 0.5, Plan((0,))),
    "a full batch does not wait": (queue(("a", 2, 1.0), ("a", 2, 1.0)), 1.0, 3, 9.0, Plan((0,))),
    "nor does one that fills up exactly": (queue(("a", 4, 1.0)), 1.0, 4, 9.0, Plan((0,))),
    "nor do several that do": (queue(("a", 2, 1.0), ("a", 2, 1.0)), 1.0, 4, 9.0, Plan((0, 1))),
    "the oldest chooses the lane": (queue(("a", 1, 0.0), ("b", 1, 0.0), ("a", 1, 0.0)), 0.0, 4, 0.0, Plan((0, 2))),
    "a large request runs alone": (queue(("a", 9, 0.0), ("a", 1, 0.0)), 0.0, 4, 9.0, Plan((0,))),
    "nobody overtakes in a lane": (queue(("a", 3, 0.0), ("a", 2, 0.0), ("a", 1, 0.0)), 0.0, 4, 0.0, Plan((0,))),
}


@pytest.mark.parametrize("case", CASES)
def test_cases(case: str) -> None:
    waiting, now, max_rows, max_delay, plan = CASES[case]
    assert next_batch(waiting, now, max_rows=max_rows, max_delay=max_delay) == plan


waitings = st.lists(
    st.builds(Waiting, lane=st.sampled_from("abc"), rows=st.integers(1, 9), arrived=st.floats(0, 1)), max_size=20
).map(lambda waiting: sorted(waiting, key=lambda one: one.arrived))


@given(waitings, st.integers(1, 8), st.floats(0, 2), st.floats(0, 2))
def test_what_holds_of_every_plan(waiting: list[Waiting], max_rows: int, max_delay: float, now: float) -> None:
    plan = next_batch(waiting, now, max_rows=max_rows, max_delay=max_delay)
    if not plan.run:
        assert plan.look_again_at is None or now < plan.look_again_at == waiting[0].arrived + max_delay
        assert (plan.look_again_at is None) == (not waiting)
        return
    assert plan.run[0] == 0, "the oldest request is always served first"
    lanes = {waiting[position].lane for position in plan.run}
    assert lanes == {waiting[0].lane}
    mates = [position for position, one in enumerate(waiting) if one.lane in lanes]
    assert list(plan.run) == mates[: len(plan.run)], "a lane's requests keep their order, with no gaps"
    assert len(plan.run) == 1 or sum(waiting[position].rows for position in plan.run) <= max_rows


@given(waitings, st.integers(1, 8), st.floats(0, 2))
def test_a_queue_is_served_to_the_end_and_each_lane_in_order(
    waiting: list[Waiting], max_rows: int, max_delay: float
) -> None:
    left, served, now, turns = list(enumerate(waiting)), [], 0.0, 0
    while left:
        plan = next_batch([one for _, one in left], now, max_rows=max_rows, max_delay=max_delay)
        if not plan.run:
            assert plan.look_again_at is not None
            now = plan.look_again_at
            continue
        turns += 1
        served += [left[position] for position in plan.run]
        left = [one for position, one in enumerate(left) if position not in plan.run]
    assert turns <= len(waiting)
    for lane in "abc":
        order = [number for number, one in served if one.lane == lane]
        assert order == sorted(order)
