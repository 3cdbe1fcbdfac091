"""Drift that steps find on the way: of the entropy, of the statistics, and of nothing on a steady stream."""

import dataclasses

import numpy as np
import pytest

from acclimate.adapters.fields import STEPS
from acclimate.adapters.guards import Guards
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.restoration import PeriodicReset
from acclimate.adapters.watch import REASON, Drift
from acclimate.runtime.engines.reference import reference_engine
from tests.adapters.stepping import fresh, recipe, step, stream

ENGINE = reference_engine()
OPEN = Guards(trust_radius=100, collapse_ratio=0, canary_every=0)
ROWS = 32


def alarms(name: str, batches: list[np.ndarray]) -> list[tuple[int, Drift]]:
    """Steps at which one session's stream changed, and how."""
    chosen, found = recipe(name, ENGINE, OPEN, batch_rows=ROWS), []
    state = fresh(chosen, ENGINE, 1)
    for turn, inputs in enumerate(batches):
        result = step(chosen, state, inputs, np.zeros(ROWS, np.intp), ENGINE)
        state = result.state
        if result.drift[0] != Drift.NONE:
            assert result.state[REASON][0] == result.drift[0]
            found.append((turn, Drift(int(result.drift[0]))))
    return found


def part(start: int, steps: int, shift: float, scale: float) -> list[np.ndarray]:
    return [stream(start + turn, ROWS, shift=shift, scale=scale) for turn in range(steps)]


@pytest.mark.parametrize("name", ["norm", "tent", "auto"])
def test_a_steady_stream_is_quiet_and_a_change_is_found_soon(name: str) -> None:
    before, after = part(0, 150, 0.3, 1.2), part(500, 10, 2.5, 3.0)
    found = alarms(name, before + after)
    assert [turn for turn, _ in found if turn < 150] == []
    assert found[0][0] < 154
    assert found[0][1] == Drift.STATISTICS


def test_entropy_alone_tells_where_there_are_no_batch_statistics() -> None:
    """`rotta` normalises with the session's own statistics, so only its answers can tell."""
    found = alarms("rotta", part(0, 30, 0.0, 1.0) + part(500, 10, 0.0, 0.1))
    assert found
    assert 30 <= found[0][0] < 36
    assert {drift for _, drift in found} == {Drift.ENTROPY}


def test_the_watch_goes_on_where_a_step_is_refused_and_a_nan_does_not_stay() -> None:
    chosen = recipe("norm", ENGINE, dataclasses.replace(OPEN, trust_radius=-1.0), batch_rows=ROWS)
    state = fresh(chosen, ENGINE, 2)
    inputs, group = np.concatenate([stream(0, ROWS), stream(1, ROWS)]), np.repeat([0, 1], ROWS)
    inputs[0, 0] = np.nan
    result = step(chosen, state, inputs, group, ENGINE, labels=np.zeros(2 * ROWS, np.int64))
    assert result.outcome.tolist() == [Outcome.ROLLED_BACK_NONFINITE, Outcome.ROLLED_BACK_TRUST_REGION]
    assert result.state["drift.entropy.count"].tolist() == [0, 1]
    for name, value in result.state.items():
        if name.startswith("drift."):
            assert np.isfinite(value).all()


def test_a_session_that_goes_back_is_told_why() -> None:
    base = recipe("norm", ENGINE, dataclasses.replace(OPEN, max_strikes=2), batch_rows=ROWS)
    chosen = dataclasses.replace(base, resets=(PeriodicReset(3),))
    state, inputs = fresh(chosen, ENGINE, 2), np.concatenate([stream(0, ROWS), stream(1, ROWS)])
    state[STEPS][1] = 2
    first = step(chosen, state, inputs, np.repeat([0, 1], ROWS), ENGINE)
    assert (first.restore.tolist(), first.reason.tolist()) == ([False, True], ["", "periodic"])
    strict = dataclasses.replace(chosen, guards=dataclasses.replace(chosen.guards, trust_radius=-1.0, max_strikes=1))
    second = step(strict, state, inputs, np.repeat([0, 1], ROWS), ENGINE)
    assert second.reason.tolist() == ["strikes", "strikes"]
