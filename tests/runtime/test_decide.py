"""Which requests make a batch, and whose turn it is: a table of cases, and what holds of every queue."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.runtime.scheduler.fair import FairQueue


@dataclass(eq=False)
class Waiting:
    """A request as the queue sees it."""

    lane: str
    rows: int
    arrived: float
    tenant: str = ""
    priority: int = 2
    session: object | None = None


def queue(*entries: Waiting, weights: dict[str, float] | None = None) -> FairQueue[Waiting]:
    filled: FairQueue[Waiting] = FairQueue(lambda tenant: (weights or {}).get(tenant, 1.0))
    for entry in entries:
        filled.add(entry)
    return filled


CASES = {
    "nothing waits": ((), 0.0, 4, 0.0, (), None),
    "one request, no delay": ((("a", 1, 0.0),), 0.0, 4, 0.0, (0,), None),
    "one request waits for company": ((("a", 1, 1.0),), 1.0, 4, 0.5, (), 1.5),
    "and runs alone when none comes": ((("a", 1, 1.0),), 1.5, 4, 0.5, (0,), None),
    "a full batch does not wait": ((("a", 2, 1.0), ("a", 2, 1.0)), 1.0, 3, 9.0, (0,), None),
    "nor does one that fills up exactly": ((("a", 4, 1.0),), 1.0, 4, 9.0, (0,), None),
    "nor do several that do": ((("a", 2, 1.0), ("a", 2, 1.0)), 1.0, 4, 9.0, (0, 1), None),
    "the oldest chooses the lane": ((("a", 1, 0.0), ("b", 1, 0.0), ("a", 1, 0.0)), 0.0, 4, 0.0, (0, 2), None),
    "a large request runs alone": ((("a", 9, 0.0), ("a", 1, 0.0)), 0.0, 4, 9.0, (0,), None),
    "nobody overtakes in a lane": ((("a", 3, 0.0), ("a", 2, 0.0), ("a", 1, 0.0)), 0.0, 4, 0.0, (0,), None),
}


@pytest.mark.parametrize("case", CASES)
def test_cases(case: str) -> None:
    entries, now, max_rows, max_delay, run, again = CASES[case]
    waiting = [Waiting(*entry) for entry in entries]
    batch = queue(*waiting).take(now, max_rows=max_rows, max_delay=max_delay)
    assert batch.items == [waiting[position] for position in run]
    assert batch.look_again_at == again


waitings = st.lists(
    st.builds(
        Waiting,
        lane=st.sampled_from("abc"),
        rows=st.integers(1, 9),
        arrived=st.floats(0, 1),
        tenant=st.sampled_from(["", "x", "y"]),
    ),
    max_size=20,
).map(lambda waiting: sorted(waiting, key=lambda one: one.arrived))


@given(waitings, st.integers(1, 8), st.floats(0, 2), st.floats(0, 2))
def test_what_holds_of_every_batch(waiting: list[Waiting], max_rows: int, max_delay: float, now: float) -> None:
    filled = queue(*waiting)
    batch = filled.take(now, max_rows=max_rows, max_delay=max_delay)
    if not batch.items:
        assert len(filled) == len(waiting), "nothing is taken out that does not run"
        assert (batch.look_again_at is None) == (not waiting)
        assert batch.look_again_at in {None, *(one.arrived + max_delay for one in waiting)}
        return
    assert len({one.lane for one in batch.items}) == 1
    assert len(batch.items) == 1 or sum(one.rows for one in batch.items) <= max_rows
    for tenant in ("", "x", "y"):
        mates = [one for one in waiting if one.tenant == tenant and one.lane == batch.items[0].lane]
        taken = [one for one in batch.items if one.tenant == tenant]
        assert taken == mates[: len(taken)], "a tenant's requests of a lane keep their order, with no gaps"
    assert sorted(map(id, filled)) == sorted(id(one) for one in waiting if one not in batch.items)


@given(waitings, st.integers(1, 8), st.floats(0, 2))
def test_a_queue_is_served_to_the_end_and_each_lane_in_order(
    waiting: list[Waiting], max_rows: int, max_delay: float
) -> None:
    filled, served, now, turns = queue(*waiting), [], 0.0, 0
    while len(filled):
        batch = filled.take(now, max_rows=max_rows, max_delay=max_delay)
        if not batch.items:
            assert batch.look_again_at is not None
            now = max(now, batch.look_again_at)
            continue
        turns += 1
        served += batch.items
    assert turns <= len(waiting)
    for tenant in ("", "x", "y"):
        for lane in "abc":
            order = [waiting.index(one) for one in served if (one.tenant, one.lane) == (tenant, lane)]
            assert order == sorted(order)


def served(filled: FairQueue[Waiting], batches: int, max_rows: int) -> Counter[str]:
    """Rows of each tenant in the next batches."""
    rows: Counter[str] = Counter()
    for _ in range(batches):
        for one in filled.take(0.0, max_rows=max_rows, max_delay=0.0).items:
            rows[one.tenant] += one.rows
    return rows


def test_a_tenant_that_floods_does_not_delay_another() -> None:
    flood = [Waiting("shared", 1, 0.0, "loud") for _ in range(1000)]
    quiet = Waiting("shared", 1, 1.0, "quiet")
    assert quiet in queue(*flood, quiet).take(1.0, max_rows=8, max_delay=0.0).items
    own = Waiting("own parameters", 1, 1.0, "quiet")
    filled = queue(*flood)
    assert served(filled, 3, 8) == {"loud": 24}
    filled.add(own)
    assert filled.take(1.0, max_rows=8, max_delay=0.0).items == [own], "whoever was idle is next"


@pytest.mark.parametrize("lanes", [("shared", "shared"), ("one", "another")], ids=["one lane", "lanes of their own"])
def test_rows_are_divided_by_weight(lanes: tuple[str, str]) -> None:
    waiting = [Waiting(lane, 2, 0.0, tenant) for tenant, lane in zip("xy", lanes, strict=True) for _ in range(400)]
    rows = served(queue(*waiting, weights={"x": 3.0}), batches=40, max_rows=8)
    assert rows.total() == 320
    assert rows["x"] == pytest.approx(240, abs=8)


def test_a_large_request_is_paid_for_by_its_tenant() -> None:
    waiting = [Waiting("x", 32, 0.0, "x") for _ in range(10)] + [Waiting("y", 1, 0.0, "y") for _ in range(400)]
    rows = served(queue(*waiting), batches=20, max_rows=8)
    assert rows["x"] == pytest.approx(rows["y"], abs=32)


def test_idle_tenants_save_nothing_up_and_keep_their_debts() -> None:
    filled = queue(*(Waiting("a", 1, 0.0, "x") for _ in range(100)))
    served(filled, 10, 8)
    filled.add(Waiting("b", 64, 0.0, "y"))
    assert filled.take(0.0, max_rows=8, max_delay=0.0).items[0].tenant == "y"
    # y has been served 64 rows at once and left; coming back, it waits until the others have caught up.
    filled.add(Waiting("b", 1, 0.0, "y"))
    assert served(filled, 2, 8) == {"x": 16}
    assert served(filled, 1, 8) == {"x": 4}
    assert served(filled, 1, 8) == {"y": 1}


def test_what_is_dropped_costs_nobody_anything() -> None:
    kept = Waiting("a", 1, 0.0, "x")
    filled = queue(kept, Waiting("a", 64, 0.0, "y"), Waiting("a", 1, 0.0, "x"))
    filled.drop(lambda one: one is not kept)
    assert list(filled) == [kept]
    assert len(filled) == 1
    assert filled.take(0.0, max_rows=8, max_delay=0.0).items == [kept]
    assert filled.take(0.0, max_rows=8, max_delay=0.0).items == []
