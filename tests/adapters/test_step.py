"""The transaction: what it asks, what it leaves alone, and what each guard does with a bad proposal."""

import dataclasses

import numpy as np
import pytest

from acclimate.adapters.errors import RecipeError
from acclimate.adapters.fields import STATS, STEPS, STRIKES, THETA
from acclimate.adapters.guards import Guards
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.recipes import RECIPES, build, parameters, values
from acclimate.adapters.requests import Frozen, Gradient, Gradients, Outputs, Serve
from acclimate.runtime.engines.reference import reference_engine
from tests.adapters.stepping import fresh, recipe, rows_of, step, stream

ENGINE = reference_engine()
LEARNING = sorted(set(RECIPES) - {"source"})
TWO = np.repeat([0, 1], 16)


def asks_for_gradients(name: str) -> bool:
    """Whether the first step of a recipe asks for a gradient."""
    chosen, asked = recipe(name, ENGINE), []
    step(chosen, fresh(chosen, ENGINE, 2), stream(7, 32), TWO, asked=asked)
    return any(isinstance(request, Gradient) for request in asked)


OPTIMISING = [name for name in LEARNING if asks_for_gradients(name)]


def equal_states(one, other) -> None:
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("name", LEARNING)
def test_a_step_keeps_shapes_dtypes_and_its_inputs(name: str) -> None:
    chosen = recipe(name, ENGINE)
    state, inputs = fresh(chosen, ENGINE, 2), stream(0, 32)
    before = {key: value.copy() for key, value in state.items()}
    result = step(chosen, state, inputs, TWO)
    equal_states(state, before)
    np.testing.assert_array_equal(inputs, stream(0, 32))
    for key, value in result.state.items():
        assert (value.dtype, value.shape) == (state[key].dtype, state[key].shape), key
    assert list(result.outcome) == [Outcome.APPLIED] * 2


@pytest.mark.parametrize("name", LEARNING)
def test_a_session_is_not_affected_by_who_shares_its_step(name: str) -> None:
    chosen = recipe(name, ENGINE)
    state = fresh(chosen, ENGINE, 2)
    mine, other = stream(1, 16), stream(2, 16, shift=-3)
    together = step(chosen, state, np.concatenate([mine, other]), TWO)
    alone = step(chosen, {key: value[:1] for key, value in state.items()}, mine, np.zeros(16, np.intp))
    for key, value in alone.state.items():
        np.testing.assert_allclose(together.state[key][0], value[0], rtol=1e-5, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("name", LEARNING)
def test_interleaving_the_rows_of_two_sessions_changes_nothing(name: str) -> None:
    chosen = recipe(name, ENGINE)
    state, inputs = fresh(chosen, ENGINE, 2), stream(3, 32)
    order = np.arange(32).reshape(2, 16).T.reshape(-1)
    one, other = step(chosen, state, inputs, TWO), step(chosen, state, inputs[order], TWO[order])
    for key in one.state:
        np.testing.assert_allclose(other.state[key], one.state[key], rtol=1e-5, atol=1e-6, err_msg=key)


def test_norm_moves_the_statistics_by_the_prior_count_and_nothing_else() -> None:
    chosen = recipe("norm", ENGINE, prior=48)
    state, inputs = fresh(chosen, ENGINE, 1), stream(4, 16)
    result = step(chosen, state, inputs, np.zeros(16, np.intp))
    batch = np.concatenate([inputs.mean(axis=0), inputs.var(axis=0)])
    np.testing.assert_allclose(result.state[STATS][0], 0.75 * state[STATS][0] + 0.25 * batch, rtol=1e-5)
    np.testing.assert_array_equal(result.state[THETA], state[THETA])
    assert result.asked.backward == 0


def test_eata_asks_for_gradients_of_the_selected_rows_only() -> None:
    chosen, asked = recipe("eata", ENGINE, epsilon=1.0), []
    result = step(chosen, fresh(chosen, ENGINE, 2), stream(5, 32), TWO, asked=asked)
    assert 0 < result.selected.sum() < 32
    assert rows_of(asked, Gradient) == [result.selected.sum()] == [result.asked.backward]


def test_tent_takes_every_row_through_the_batch_statistics() -> None:
    chosen, asked = recipe("tent", ENGINE), []
    step(chosen, fresh(chosen, ENGINE, 2), stream(5, 32), TWO, asked=asked)
    gradient = next(request for request in asked if isinstance(request, Gradient))
    assert len(gradient.rows) == 32
    assert (gradient.rows.alpha > 0).all()


def test_an_empty_selection_moves_statistics_but_neither_theta_nor_momentum() -> None:
    chosen = recipe("eata", ENGINE, margin_ratio=0.0)
    state, asked = fresh(chosen, ENGINE, 1), []
    result = step(chosen, state, stream(6, 16), np.zeros(16, np.intp), asked=asked)
    assert result.outcome[0] == Outcome.SKIPPED_NOT_SELECTED
    assert rows_of(asked, Gradient) == []
    kept = [key for key in state if not key.startswith(("drift.", "pace."))]
    moved = {key for key in kept if not np.array_equal(state[key], result.state[key])}
    assert moved == {STATS, STEPS}


def nan_gradients(request, reply):
    if isinstance(reply, Gradients):
        return dataclasses.replace(
            reply, grad_theta=np.where(request.rows.group[:, None] == 0, np.nan, reply.grad_theta)
        )
    return reply


@pytest.mark.parametrize("name", OPTIMISING)
def test_a_nan_gradient_rolls_back_its_own_session_only(name: str) -> None:
    everything = {"margin_ratio": 1.0} if "margin_ratio" in values(name, {}) else {}
    chosen = recipe(name, ENGINE, **everything)
    state = fresh(chosen, ENGINE, 2)
    result = step(chosen, state, stream(7, 32), TWO, twist=nan_gradients)
    assert list(result.outcome) == [Outcome.ROLLED_BACK_NONFINITE, Outcome.APPLIED]
    np.testing.assert_array_equal(result.state[STRIKES], [1, 0])
    for key in [key for key in set(state) - {STRIKES, STEPS} if not key.startswith(("drift.", "pace."))]:
        np.testing.assert_array_equal(result.state[key][0], state[key][0], err_msg=key)
    assert np.isfinite(result.state[THETA]).all()


def test_theta_may_not_leave_the_trust_region() -> None:
    chosen = recipe("tent", ENGINE, Guards(trust_radius=0.01), lr=0.5)
    state = fresh(chosen, ENGINE, 1)
    result = step(chosen, state, stream(8, 16), np.zeros(16, np.intp))
    assert result.outcome[0] == Outcome.ROLLED_BACK_TRUST_REGION
    np.testing.assert_array_equal(result.state[THETA], state[THETA])
    assert result.distance[0] == 0


def collapsed(request, reply):
    """What would be served answers class 0 to everything of session 0."""
    if isinstance(request, Serve):
        logits = reply.logits.copy()
        logits[request.group == 0] = [9, 0, 0, 0]
        return Outputs(logits, reply.batch_stats)
    return reply


@pytest.mark.parametrize("name", LEARNING)
def test_a_proposal_that_collapses_onto_one_class_is_rolled_back(name: str) -> None:
    chosen = recipe(name, ENGINE, Guards(canary_every=0))
    state = fresh(chosen, ENGINE, 2)
    result = step(chosen, state, stream(9, 32), TWO, twist=collapsed)
    assert list(result.outcome) == [Outcome.ROLLED_BACK_COLLAPSE, Outcome.APPLIED]
    np.testing.assert_array_equal(result.state[STATS][0], state[STATS][0])


def test_a_proposal_that_forgets_the_canaries_is_rolled_back() -> None:
    def forgets(request, reply):
        if isinstance(request, Serve) and len(request.inputs) == len(ENGINE.source.canary_labels):
            return Outputs(-reply.logits, reply.batch_stats)
        return reply

    chosen = recipe("tent", ENGINE, Guards(canary_every=1))
    result = step(chosen, fresh(chosen, ENGINE, 1), stream(10, 24), np.zeros(24, np.intp), twist=forgets)
    assert result.outcome[0] == Outcome.ROLLED_BACK_CANARY


def test_canaries_are_asked_at_their_cadence() -> None:
    chosen = recipe("tent", ENGINE, Guards(canary_every=3))
    state, with_canaries = fresh(chosen, ENGINE, 1), []
    for turn in range(6):
        asked = []
        state = step(chosen, state, stream(turn, 24), np.zeros(24, np.intp), asked=asked).state
        with_canaries.append(sum(isinstance(request, Frozen) for request in asked) == 2)
    assert with_canaries == [False, False, True, False, False, True]


def test_after_a_refusal_canaries_are_asked_until_they_pass() -> None:
    """What a refusal at the third step leaves is the second step's, which no check has seen."""
    canaries = len(ENGINE.source.canary_labels)

    def forgets(request, reply):
        if isinstance(request, Serve) and len(request.inputs) == canaries:
            return Outputs(-reply.logits, reply.batch_stats)
        return reply

    chosen = recipe("tent", ENGINE, Guards(canary_every=3))
    state, outcomes = fresh(chosen, ENGINE, 1), []
    for turn in range(7):
        result = step(
            chosen, state, stream(turn, 24), np.zeros(24, np.intp), twist=forgets if turn in (2, 3, 6) else None
        )
        state = result.state
        outcomes.append(Outcome(int(result.outcome[0])))
    refused, applied = Outcome.ROLLED_BACK_CANARY, Outcome.APPLIED
    assert outcomes == [applied, applied, refused, refused, applied, applied, applied]


def test_strikes_add_up_to_a_restoration_and_a_good_step_clears_them() -> None:
    chosen = recipe("tent", ENGINE, Guards(max_strikes=3, canary_every=0))
    state = fresh(chosen, ENGINE, 1)
    for turn, twist in enumerate([nan_gradients, nan_gradients, None, nan_gradients, nan_gradients]):
        result = step(chosen, state, stream(turn, 16), np.zeros(16, np.intp), twist=twist)
        state = result.state
        assert not result.restore[0]
    assert step(chosen, state, stream(9, 16), np.zeros(16, np.intp), twist=nan_gradients).restore[0]


@pytest.mark.parametrize("name", LEARNING)
def test_two_runs_agree_to_the_bit(name: str) -> None:
    def run():
        chosen = recipe(name, ENGINE)
        state = fresh(chosen, ENGINE, 1)
        for turn in range(5):
            state = step(chosen, state, stream(turn, 16), np.zeros(16, np.intp)).state
        return state

    equal_states(run(), run())


@pytest.mark.parametrize("name", LEARNING)
def test_a_snapshot_in_between_changes_nothing(name: str) -> None:
    chosen = recipe(name, ENGINE)
    straight = fresh(chosen, ENGINE, 1)
    for turn in range(4):
        straight = step(chosen, straight, stream(turn, 16), np.zeros(16, np.intp)).state
    half = fresh(chosen, ENGINE, 1)
    for turn in range(2):
        half = step(chosen, half, stream(turn, 16), np.zeros(16, np.intp)).state
    half = {key: np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape) for key, value in half.items()}
    for turn in range(2, 4):
        half = step(chosen, half, stream(turn, 16), np.zeros(16, np.intp)).state
    equal_states(half, straight)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("entropia", {}, "'entropia' is unknown; use one of"),
        ("eata", {"lrr": 1.0}, "'lrr' is unknown; it has"),
        ("eata", {"lr": -1.0}, r"lr is -1.0; it must lie in \[0, 1\]"),
        ("eata", {"lr": float("nan")}, "lr is nan"),
        ("tent", {"batch_rows": 3.5}, "must be a whole number"),
        ("source", {"lr": 0.1}, "'lr' is unknown; it has"),
    ],
)
def test_recipes_refuse_what_they_cannot_use(name: str, given: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parameters(name, given)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_parameter_of_every_recipe_can_be_given(name: str) -> None:
    shown = values(name, {})
    assert values(name, shown) == shown
    assert build(name, shown, ENGINE.source, Guards()).name == name
