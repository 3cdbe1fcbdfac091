"""A session looks often at what is new, seldom at what it knows, at once at what has changed, and never on credit."""

from collections.abc import Callable

import numpy as np
import pytest

from acclimate.adapters.bank import State
from acclimate.adapters.fields import STATS, STEPS, THETA
from acclimate.adapters.guards import Guards
from acclimate.adapters.moves.shrinking import DOMAIN
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.pacing import (
    AGE,
    ALIKE,
    APART,
    DUE,
    KNOWN,
    LEVEL,
    OFTEN,
    RESTLESS,
    SINCE,
    SURPRISED,
    USUAL,
    VARIANCE,
    Pace,
)
from acclimate.adapters.requests import Request, Serve
from acclimate.adapters.resting import STARVED
from acclimate.adapters.sketch import sketch
from acclimate.adapters.step import Batch, StepResult, adaptation_step
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.scheduler.drive import run_step
from tests.adapters.stepping import WHOLE, fresh, recipe, step, stream

ENGINE = reference_engine()
OPEN = Guards(trust_radius=100, collapse_ratio=0, canary_every=0)
ROWS = 32
PACE = Pace(eager=96, growth=0.5, longest=200, every=1e9, surprise=4, look=ROWS)
# Every sample is worth a gradient, so that what is not spent was saved on purpose.
EAGER = {"margin_ratio": 1.0, "epsilon": 1.0}


def many(state: State, sessions: int) -> State:
    return {name: np.stack([value] * sessions) for name, value in state.items()}


def played(pace: Pace, batches: list[np.ndarray]) -> list[bool]:
    """Whether one session stepped at each batch; its answers are all alike."""
    state, awake = many(pace.template(4), 1), []
    for inputs in batches:
        paced = pace.choose(state, inputs, np.zeros((len(inputs), 4), np.float32), np.zeros(len(inputs), np.intp))
        awake.append(bool(paced.awake[0]))
        state = paced.state
    return awake


def test_steps_thin_out_with_the_age_of_a_domain_and_then_keep_a_distance() -> None:
    ages = np.flatnonzero(played(PACE, [stream(turn, ROWS) for turn in range(40)])) + 1
    # 64 is below `eager`; 96 + 48, 160 + 80, 256 + 128, 384 + 192; then 200 samples, in batches of 32.
    assert (ages * ROWS).tolist() == [32, 64, 96, 160, 256, 384, 576, 800, 1024, 1248]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda x: x + 2, id="moved"),
        pytest.param(lambda x: x * 3, id="wider"),
        pytest.param(lambda x: np.sort(x, axis=1), id="smoother"),
    ],
)
def test_what_inputs_look_like_wakes_a_session(changed: Callable[[np.ndarray], np.ndarray]) -> None:
    before = [stream(turn, ROWS) for turn in range(12)]
    after = changed(stream(99, ROWS))
    assert played(PACE, [*before, stream(98, ROWS)])[-1] is False
    assert played(PACE, [*before, after])[-1] is True


def test_the_entropy_of_answers_wakes_a_session() -> None:
    state, group = many(PACE.template(4), 1), np.zeros(ROWS, np.intp)
    sure = np.tile(np.array([9, 0, 0, 0], np.float32), (ROWS, 1))
    for turn in range(12):
        paced = PACE.choose(state, stream(turn, ROWS), sure, group)
        state = paced.state
    assert not PACE.choose(state, stream(99, ROWS), sure, group).awake[0]
    assert PACE.choose(state, stream(99, ROWS), 0 * sure, group).awake[0]


def test_frames_of_one_scene_are_no_surprise() -> None:
    """Their deviation is next to nothing, and so is any change's standard error."""
    scene = np.tile(stream(0, 1), (ROWS, 1))
    noise = np.random.default_rng(0)
    batches = [scene * (1 + 1e-3 * noise.normal()) + 1e-5 * stream(turn, ROWS) for turn in range(12)]
    # One of 384 samples is due by its age alone.
    assert played(PACE, batches)[8:] == [False, False, False, True]


def test_where_batches_always_differ_only_more_than_that_wakes_a_session() -> None:
    """As where labels come in runs; frames that differ by less than usual are no surprise, a changed lens is."""
    state, group, answers = many(PACE.template(4), 2), np.repeat([0, 1], ROWS), np.zeros((2 * ROWS, 4), np.float32)
    state[DUE][:], state[KNOWN][:] = 1e6, 10 * ROWS
    state[LEVEL] = np.concatenate([[np.log(4)], sketch(stream(0, 40 * ROWS)).mean(axis=0)]) * np.ones((2, 1))
    state[VARIANCE] = np.concatenate([[0], sketch(stream(0, 40 * ROWS)).var(axis=0)]) * np.ones((2, 1))
    state[USUAL] = np.array([1.5, 6.0], np.float32)
    run = np.tile(stream(1, ROWS) + 0.7, (2, 1))
    assert PACE.choose(state, run, answers, group).awake.tolist() == [True, False]
    lens = np.tile(40 * stream(1, ROWS), (2, 1))
    assert PACE.choose(state, lens, answers, group).awake.tolist() == [True, True]


def test_a_nan_wakes_and_is_not_remembered() -> None:
    state, group, answers = many(PACE.template(4), 2), np.repeat([0, 1], ROWS), np.zeros((2 * ROWS, 4), np.float32)
    for turn in range(12):
        state = PACE.choose(state, stream(turn, 2 * ROWS), answers, group).state
    broken = stream(12, 2 * ROWS)
    broken[3, 2] = np.nan
    paced = PACE.choose(state, broken, answers, group)
    assert paced.awake.tolist() == [True, False]
    assert all(np.isfinite(value).all() for value in paced.state.values())


def paying(state: State, inputs: np.ndarray, group: np.ndarray, may: list[bool] | None = None) -> StepResult:
    batch = Batch(inputs, group, may=None if may is None else np.array(may))
    return run_step(adaptation_step(AUTO, ENGINE.source, state, batch), ENGINE, WHOLE)


AUTO = recipe("auto", ENGINE, OPEN, batch_rows=ROWS, eager=96, growth=0.5, every=1e6, surprise=6, **EAGER)


def known(sessions: int) -> State:
    """Sessions that have seen enough of one domain to rest for long."""
    state, group = fresh(AUTO, ENGINE, sessions), np.repeat(np.arange(sessions), ROWS)
    for turn in range(7):
        state = paying(state, stream(turn, sessions * ROWS, shift=0.3, scale=1.2), group).state
    state[DUE][:] = 1e6
    return state


def test_a_resting_session_costs_one_look_at_its_answers_and_none_if_they_are_brought() -> None:
    state, inputs, group = known(1), stream(50, ROWS, shift=0.3, scale=1.2), np.zeros(ROWS, np.intp)
    asked: list[Request] = []
    result = step(AUTO, state, inputs, group, ENGINE, asked=asked)
    assert [type(request) for request in asked] == [Serve]
    assert result.outcome.tolist() == [Outcome.SKIPPED_RESTING]
    served = ENGINE.predict(inputs, ENGINE.fold(state[THETA][0], state[STATS][0]))
    np.testing.assert_allclose(result.logits, served, rtol=1e-5)
    brought = run_step(adaptation_step(AUTO, ENGINE.source, state, Batch(inputs, group, answers=served)), ENGINE, WHOLE)
    assert (brought.asked.forward, brought.asked.backward, brought.asked.quantized) == (0, 0, 0)
    for name, value in result.state.items():
        np.testing.assert_allclose(brought.state[name], value, rtol=1e-5, err_msg=name)
    for name in set(state) - {AGE, ALIKE, APART, OFTEN, SINCE, KNOWN, LEVEL, VARIANCE, RESTLESS, SURPRISED, USUAL}:
        np.testing.assert_array_equal(result.state[name], state[name], err_msg=name)


def test_a_resting_session_costs_its_neighbours_nothing() -> None:
    state, group = known(3), np.tile([0, 1, 2], ROWS)
    state[SINCE][[0, 2]] = 1e6
    inputs = stream(60, 3 * ROWS, shift=0.3, scale=1.2)
    together = paying(state, inputs, group)
    assert together.asked.backward == 2 * ROWS
    assert together.outcome.tolist() == [Outcome.APPLIED, Outcome.SKIPPED_RESTING, Outcome.APPLIED]
    assert (together.state[STEPS] - state[STEPS]).tolist() == [1, 0, 1]
    np.testing.assert_array_equal(together.state[THETA][1], state[THETA][1])
    for session in (0, 2):
        one = {name: value[session : session + 1] for name, value in state.items()}
        alone = paying(one, inputs[group == session], np.zeros(ROWS, np.intp))
        np.testing.assert_allclose(together.logits[group == session], alone.logits, rtol=1e-4, atol=1e-5)
        for name, value in alone.state.items():
            np.testing.assert_allclose(together.state[name][session], value[0], rtol=1e-5, atol=1e-6, err_msg=name)


def test_between_gradients_a_step_only_follows_statistics() -> None:
    state, group = known(2), np.repeat([0, 1], ROWS)
    state[DUE][:] = 0
    state[SINCE][1] = 1e6
    result = paying(state, stream(61, 2 * ROWS, shift=0.3, scale=1.2), group)
    assert result.outcome.tolist() == [Outcome.SKIPPED_NOT_SELECTED, Outcome.APPLIED]
    assert result.asked.backward == ROWS
    np.testing.assert_array_equal(result.state[THETA][0], state[THETA][0])
    assert not np.array_equal(result.state[DOMAIN][0], state[DOMAIN][0])
    assert result.state[SINCE].tolist() == [state[SINCE][0] + ROWS, 0]


def test_a_step_looks_at_evenly_spaced_samples_and_answers_the_others_alike() -> None:
    few = recipe("auto", ENGINE, OPEN, batch_rows=4 * ROWS, look=ROWS, **EAGER)
    inputs, group = stream(0, 4 * ROWS), np.zeros(4 * ROWS, np.intp)
    state = fresh(few, ENGINE, 1)
    result = run_step(adaptation_step(few, ENGINE.source, state, Batch(inputs, group)), ENGINE, WHOLE)
    looked = run_step(adaptation_step(few, ENGINE.source, state, Batch(inputs[::4], group[::4])), ENGINE, WHOLE)
    assert (result.asked.forward, looked.asked.forward) == (ROWS, ROWS)
    np.testing.assert_array_equal(result.state[STATS], looked.state[STATS])
    served = ENGINE.predict(inputs, ENGINE.fold(state[THETA][0], result.state[STATS][0]))
    np.testing.assert_allclose(result.logits, served, rtol=1e-4, atol=1e-5)


def test_a_new_domain_is_looked_at_often_again() -> None:
    state, group = known(1), np.zeros(ROWS, np.intp)
    state[AGE][:] = 1e5
    for turn in range(3):
        result = paying(state, stream(200 + turn, ROWS, shift=2.5, scale=3.0), group)
        assert result.outcome[0] != Outcome.SKIPPED_RESTING
        state = result.state
    assert state[AGE][0] < 1e4
    assert state[DUE][0] < 2 * state[AGE][0]


def test_a_session_that_cannot_pay_waits_with_what_it_knows() -> None:
    state, group = known(2), np.repeat([0, 1], ROWS)
    state[SINCE][:] = 1e6
    result = paying(state, stream(70, 2 * ROWS, shift=0.3, scale=1.2), group, may=[False, True])
    assert result.outcome.tolist() == [Outcome.SKIPPED_BUDGET, Outcome.APPLIED]
    assert not result.restore.any()
    for name in (THETA, STATS, DOMAIN):
        np.testing.assert_array_equal(result.state[name][0], state[name][0])
    assert paying(result.state, stream(71, 2 * ROWS, shift=0.3, scale=1.2), group).outcome[0] == Outcome.APPLIED


def test_a_session_whose_stream_changes_while_it_cannot_pay_goes_back_to_the_source() -> None:
    """What it learnt is of another stream, and nothing says how wrong it is on this one."""
    state, group = known(2), np.repeat([0, 1], ROWS)
    inputs = np.concatenate([stream(80, ROWS, shift=2.5, scale=3.0), stream(81, ROWS, shift=0.3, scale=1.2)])
    result = paying(state, inputs, group, may=[False, False])
    assert result.restore.tolist() == [True, False]
    assert result.reason.tolist() == [STARVED, ""]
    assert result.outcome.tolist() == [Outcome.SKIPPED_BUDGET, Outcome.SKIPPED_RESTING]
    fresh_one = fresh(AUTO, ENGINE, 1)
    again = paying(fresh_one, inputs[:ROWS], group[:ROWS], may=[False])
    assert again.outcome.tolist() == [Outcome.SKIPPED_BUDGET]
    assert not again.restore.any(), "a session at the source has nothing to lose"
