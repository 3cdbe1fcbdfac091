"""Rows come and go without touching their neighbours; buckets fill with time and are charged with debt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters import budget
from acclimate.adapters.bank import SessionBank
from acclimate.adapters.errors import LayoutError

TEMPLATE = {"theta": np.array([1.0, 2.0], np.float32), "count": np.zeros((), np.int64)}


def test_rows_are_copies_and_the_bank_grows() -> None:
    bank = SessionBank(TEMPLATE, capacity=2)
    rows = [bank.allocate() for _ in range(9)]
    assert len(set(rows)) == bank.live == 9
    state = bank.gather(rows)
    state["theta"][:] = 5
    np.testing.assert_array_equal(bank.view("theta", rows[3]), [1, 2])
    state["count"] = np.arange(9)
    bank.scatter(rows, state)
    assert bank.view("count", rows[8]) == 8
    np.testing.assert_array_equal(bank.view("theta", rows[0]), [5, 5])


def test_a_released_row_comes_back_clean() -> None:
    bank = SessionBank(TEMPLATE, capacity=1)
    row = bank.allocate()
    bank.scatter([row], {"theta": np.full((1, 2), 9, np.float32), "count": np.array([4])})
    bank.release(row)
    assert bank.live == 0
    assert bank.allocate() == row
    np.testing.assert_array_equal(bank.view("theta", row), [1, 2])
    assert bank.view("count", row) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"theta": np.zeros((1, 2), np.float32)},
        {"theta": np.zeros((1, 3), np.float32), "count": np.zeros(1, np.int64)},
        {"theta": np.zeros((1, 2), np.float64), "count": np.zeros(1, np.int64)},
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(wrong: dict[str, np.ndarray]) -> None:
    bank = SessionBank(TEMPLATE)
    row = bank.allocate()
    with pytest.raises(LayoutError, match="expected"):
        bank.scatter([row], wrong)
    np.testing.assert_array_equal(bank.view("theta", row), [1, 2])


def test_reset_keeps_what_it_is_told_to_keep() -> None:
    bank = SessionBank(TEMPLATE | budget.template(100, 50, 0))
    row = bank.allocate()
    changed = bank.gather([row])
    changed["theta"] += 1
    bank.scatter([row], changed | budget.charge(changed, np.array([30.0]), 0.0))
    bank.reset(row, keep=budget.PREFIX)
    np.testing.assert_array_equal(bank.view("theta", row), [1, 2])
    assert bank.view(budget.TOKENS, row) == 20


def stack(*rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_buckets_refill_to_their_own_capacity_and_debts_are_paid_first() -> None:
    state = stack(budget.template(100, 50, 0), budget.template(10, 1000, 0))
    state |= budget.charge(state, np.array([80.0, 1000.0]), 0.0)
    np.testing.assert_allclose(budget.available(state, 0.0), [-30, 0])
    np.testing.assert_allclose(budget.available(state, 0.5), [20, 5])
    np.testing.assert_allclose(budget.available(state, 100.0), [50, 1000])
    np.testing.assert_array_equal(budget.affordable(state, 30, 0.5), [False, False])
    np.testing.assert_array_equal(budget.affordable(state, 30, 3.0), [True, True])


def test_a_clock_that_jumps_back_grants_nothing() -> None:
    state = stack(budget.template(100, 50, 1000.0))
    state |= budget.charge(state, np.array([50.0]), 1000.0)
    np.testing.assert_allclose(budget.available(state, 10.0), [0])


@given(spends=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 40)), max_size=30))
def test_what_is_spent_never_exceeds_what_was_granted_by_more_than_one_step(
    spends: list[tuple[float, float]],
) -> None:
    rate, capacity, now, spent = 20.0, 60.0, 0.0, 0.0
    state = stack(budget.template(rate, capacity, now))
    for wait, cost in spends:
        now += wait
        if budget.affordable(state, cost, now)[0]:
            state |= budget.charge(state, np.array([cost]), now)
            spent += cost
    assert spent <= capacity + rate * now + 1e-6


LARGE: dict[str, np.ndarray] = {
    "theta": np.arange(400, dtype=np.float32),
    "moments": np.zeros(300, np.float32),
    "count": np.zeros((), np.int64),
    "budget.tokens": np.full((), 7.0),
}
ACTIONS = ("allocate", "release", "reset", "reset, budget kept", "reset, theta kept", "write", "write theta", "scatter")


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 99)), max_size=40))
def test_rows_that_nobody_wrote_to_are_the_template_whatever_their_memory_held(actions: list[tuple[str, int]]) -> None:
    bank, rows = SessionBank(LARGE, capacity=1), dict[int, dict[str, np.ndarray]]()
    for number, (action, pick) in enumerate(actions):
        if action == "allocate" or not rows:
            row = bank.allocate()
            assert row not in rows
            rows[row] = {name: np.array(value) for name, value in LARGE.items()}
            continue
        row = sorted(rows)[pick % len(rows)]
        match action:
            case "release":
                # What was there must not come back with the row.
                bank.scatter(
                    [row], {name: np.full((1, *value.shape), -1, value.dtype) for name, value in LARGE.items()}
                )
                bank.release(row)
                del rows[row]
            case "write":
                bank.write([row], {"count": np.array([number])})
                rows[row]["count"] = np.array(number)
            case "write theta":
                bank.write([row], {"theta": np.full((1, 400), number, np.float32)})
                rows[row]["theta"] = np.full(400, number, np.float32)
            case "scatter":
                changed = {name: value + 1 for name, value in bank.gather([row]).items()}
                bank.scatter([row], changed)
                rows[row] = {name: value[0] for name, value in changed.items()}
            case _:
                keep = {"reset": None, "reset, budget kept": "budget.", "reset, theta kept": "theta"}[action]
                bank.reset(row, keep=keep)
                kept = {} if keep is None else {n: v for n, v in rows[row].items() if n.startswith(keep)}
                rows[row] = {name: np.array(value) for name, value in LARGE.items()} | kept
    together = bank.gather(sorted(rows))
    for place, row in enumerate(sorted(rows)):
        for name, expected in rows[row].items():
            np.testing.assert_array_equal(bank.view(name, row), expected)
            np.testing.assert_array_equal(together[name][place], expected)
