"""`auto` spends its gradients while a domain is new, rests once it is known, and wakes when the stream changes."""

import numpy as np

from acclimate.adapters.fields import STEPS, THETA
from acclimate.adapters.guards import Guards
from acclimate.adapters.moves.shrinking import AGE, DOMAIN
from acclimate.adapters.watch import REASON, Drift
from acclimate.runtime.engines.reference import reference_engine
from tests.adapters.stepping import fresh, recipe, step, stream

ENGINE = reference_engine()
OPEN = Guards(trust_radius=100, collapse_ratio=0, canary_every=0)
ROWS = 32
# Every sample is worth a gradient, so that what is not spent was saved on purpose.
EAGER = {"margin_ratio": 1.0, "epsilon": 1.0}


def test_gradients_are_saved_once_a_domain_is_known_and_spent_again_after_a_shift() -> None:
    chosen = recipe("auto", ENGINE, OPEN, batch_rows=ROWS, settle=10 * ROWS, rest=4, **EAGER)
    state, spent, moved = fresh(chosen, ENGINE, 1), [], []
    batches = [stream(turn, ROWS, shift=0.3, scale=1.2) for turn in range(26)]
    batches += [stream(100 + turn, ROWS, shift=2.5, scale=3.0) for turn in range(6)]
    for inputs in batches:
        result = step(chosen, state, inputs, np.zeros(ROWS, np.intp), ENGINE)
        moved.append(not np.array_equal(result.state[DOMAIN], state[DOMAIN]))
        spent.append(result.asked.backward)
        state = result.state
    assert spent[:9] == [ROWS] * 9
    assert spent[9:25] == [ROWS if turn % 4 == 0 else 0 for turn in range(9, 25)]
    assert spent[26:] == [ROWS] * 6, "the change was slept through"
    assert all(moved), "statistics rest too"


def test_a_resting_session_costs_its_neighbours_nothing() -> None:
    chosen = recipe("auto", ENGINE, OPEN, batch_rows=ROWS, settle=10 * ROWS, rest=4, **EAGER)
    state, group = fresh(chosen, ENGINE, 3), np.tile([0, 1, 2], ROWS)
    inputs = stream(0, 3 * ROWS)
    for turn in range(3):
        state = step(chosen, state, stream(turn, 3 * ROWS), group, ENGINE).state
    state[AGE][1], state[STEPS][1] = 1e6, 5
    together = step(chosen, state, inputs, group, ENGINE)
    assert together.asked.backward == 2 * ROWS
    assert together.selected.tolist() == [ROWS, 0, ROWS]
    np.testing.assert_array_equal(together.state[THETA][1], state[THETA][1])
    for session in (0, 2):
        one = {name: value[session : session + 1] for name, value in state.items()}
        alone = step(chosen, one, inputs[group == session], np.zeros(ROWS, np.intp), ENGINE)
        for name, value in alone.state.items():
            np.testing.assert_allclose(together.state[name][session], value[0], rtol=1e-5, atol=1e-6, err_msg=name)


def test_drift_that_the_last_step_found_wakes_a_session() -> None:
    chosen = recipe("auto", ENGINE, OPEN, batch_rows=ROWS, settle=10 * ROWS, rest=4, **EAGER)
    state = fresh(chosen, ENGINE, 2)
    for turn in range(3):
        state = step(chosen, state, stream(turn, 2 * ROWS), np.repeat([0, 1], ROWS), ENGINE).state
    state[AGE][:], state[STEPS][:], state[REASON][1] = 1e6, 5, Drift.ENTROPY
    result = step(chosen, state, stream(4, 2 * ROWS), np.repeat([0, 1], ROWS), ENGINE)
    assert result.selected.tolist() == [0, ROWS]
