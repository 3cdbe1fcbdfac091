"""Restoration by parameters alone: which recipes take which, what each does to a session, and where it goes back to."""

import dataclasses

import numpy as np
import pytest

from acclimate.adapters.errors import RecipeError
from acclimate.adapters.fields import STATS, STEPS, STRIKES, THETA
from acclimate.adapters.guards import Guards
from acclimate.adapters.moves.teacher import STUDENT
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.recipes import BOUNDS, RECIPES, build, parameters, restoration_of, template, values
from acclimate.adapters.recipes.restored import DESCENDING, NEVER_LEARNS
from acclimate.adapters.restoration import Policy
from acclimate.adapters.restoration.policy import PARTS, PREFIX
from acclimate.adapters.restoration.ring import RING_THETA, RING_VERSION, SERVING
from acclimate.adapters.watch import REASON, Drift
from acclimate.runtime.engines.reference import reference_engine
from tests.adapters.plain import OPEN
from tests.adapters.stepping import first_move, fresh, recipe, step, stream

ENGINE = reference_engine()
SOURCE = ENGINE.source
ONE = np.zeros(24, np.intp)
FIELDS = [field.name for field in dataclasses.fields(Policy)]
REFUSING = dataclasses.replace(OPEN, trust_radius=-1.0, max_strikes=2)


def restored(name: str, guards: Guards = OPEN, lr: float = 1e-2, **policy: float):
    chosen = {PREFIX + key: value for key, value in policy.items()}
    return build(name, {"lr": lr, "batch_rows": 24} | chosen, SOURCE, guards)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_take_the_parameters_that_do_something_there(name: str) -> None:
    """`DESCENDING` lists those whose moves follow a gradient of what they serve; a new one has to be listed."""
    taken = {key.removeprefix(PREFIX) for key in restoration_of(name)}
    chosen = recipe(name, ENGINE, OPEN)
    assert (name in NEVER_LEARNS) == (not chosen.learns)
    if not chosen.learns:
        assert taken == set()
        return
    moved = first_move(chosen, ENGINE, stream(0, 24))
    descends = moved is not None and moved.gradient is not None
    assert (name in DESCENDING) == descends
    assert taken == set(FIELDS) - (set() if descends else set(PARTS))
    for key, default in restoration_of(name).items():
        low, high = BOUNDS[key]
        assert low <= default <= high
        assert values(name, {})[key] == default


@pytest.mark.parametrize("name", sorted(DESCENDING))
@pytest.mark.parametrize("policy", [{"pull": 1e6}, {"stochastic": 1.0}, {"radius": 1e-6}, {"masked": 0.5}], ids=str)
def test_each_part_holds_every_recipe_that_descends(name: str, policy: dict[str, float]) -> None:
    chosen = recipe(name, ENGINE, OPEN)
    held = recipe(name, ENGINE, OPEN, **{PREFIX + key: value for key, value in policy.items()})
    inputs = stream(3, 24)
    free = step(chosen, fresh(chosen, ENGINE, 1), inputs, ONE, ENGINE).distance[0]
    near = step(held, fresh(held, ENGINE, 1), inputs, ONE, ENGINE).distance[0]
    assert free > 0
    assert near < (free if "masked" in policy else 1e-3 * free + 2e-6)


@pytest.mark.parametrize("name", sorted(set(RECIPES) - NEVER_LEARNS))
def test_every_recipe_goes_back_to_its_checkpoint_and_can_go_on(name: str) -> None:
    """At a refusal, since that ends in a return whatever the recipe is."""
    ring = {PREFIX + "ring": 2, PREFIX + "ring_every": 3, PREFIX + "rollbacks": 1}
    chosen = recipe(name, ENGINE, OPEN, **ring)
    state = fresh(chosen, ENGINE, 2)
    assert len(state[RING_THETA][0]) == 2
    group = np.repeat([0, 1], 24)
    for turn in range(3):
        state[SERVING][:] = turn
        state = step(chosen, state, stream(turn, 48), group, ENGINE).state
    kept = {key: value.copy() for key, value in state.items()}
    np.testing.assert_array_equal(kept[RING_VERSION].max(axis=1), 3)
    refusing = dataclasses.replace(chosen, guards=dataclasses.replace(chosen.guards, trust_radius=-1.0))
    result = step(refusing, state, stream(9, 48), group, ENGINE)
    assert result.reason.tolist() == ["strikes"] * 2
    assert result.back_to.tolist() == [3, 3]
    assert not result.restore.any()
    for key in (THETA, STATS, RING_THETA):
        np.testing.assert_array_equal(result.state[key], kept[key], err_msg=key)
    assert (result.state[STEPS].tolist(), result.state[STRIKES].tolist()) == ([4, 4], [0, 0])
    if STUDENT in kept:
        np.testing.assert_array_equal(result.state[STUDENT], kept[THETA])
    after = step(chosen, result.state, stream(10, 48), group, ENGINE)
    assert set(after.outcome.tolist()) <= {Outcome.APPLIED, Outcome.SKIPPED_NOT_SELECTED}


def test_without_a_checkpoint_the_way_back_is_the_source() -> None:
    chosen = restored("tent", REFUSING, ring=2, ring_every=1)
    state = fresh(chosen, ENGINE, 1)
    for turn in range(2):
        result = step(chosen, state, stream(turn, 24), ONE, ENGINE)
        state = result.state
    assert (result.reason.tolist(), result.back_to.tolist(), result.restore.tolist()) == (["strikes"], [0], [True])


def test_the_best_checkpoint_is_by_canary_accuracy_even_where_no_canary_guard_runs() -> None:
    """The classifier is spoilt between two checkpoints; the session returns past the spoilt one."""
    chosen = restored("tent", OPEN, every=6, ring=4, ring_every=1)
    state, thetas = fresh(chosen, ENGINE, 1), []
    for turn in range(6):
        if turn == 3:
            state[THETA] = -state[THETA]
        result = step(chosen, state, stream(turn, 24), ONE, ENGINE)
        state[SERVING][:] = turn
        state = result.state | {SERVING: np.array([turn + 1])}
        thetas.append(state[THETA][0])
    assert (result.reason[0], result.back_to[0]) == ("periodic", 3)
    np.testing.assert_array_equal(thetas[-1], thetas[2])


@pytest.mark.parametrize(
    ("trigger", "guards", "reason"),
    [
        ("on_canary", dataclasses.replace(OPEN, canary_every=1, canary_tolerance=-1.0), "canary"),
        ("on_collapse", dataclasses.replace(OPEN, collapse_ratio=100.0), "collapse"),
    ],
)
def test_one_refusal_of_the_chosen_guard_is_enough(trigger: str, guards: Guards, reason: str) -> None:
    for chosen, expected in ((restored("tent", guards), ""), (restored("tent", guards, **{trigger: 1}), reason)):
        result = step(chosen, fresh(chosen, ENGINE, 1), stream(0, 24), ONE, ENGINE)
        assert result.outcome[0] == Outcome[f"ROLLED_BACK_{reason.upper()}"]
        assert result.reason[0] == expected


def test_drift_sends_back_where_that_is_asked_for() -> None:
    batches = [stream(turn, 24, shift=0.3, scale=1.2) for turn in range(30)]
    batches += [stream(turn, 24, shift=2.5, scale=3.0) for turn in range(6)]
    told = {}
    for on_drift in (0, 1):
        chosen = build("norm", {"batch_rows": 24, "restoration.on_drift": on_drift}, SOURCE, OPEN)
        state, reasons, drifts = fresh(chosen, ENGINE, 1), [], []
        for inputs in batches:
            result = step(chosen, state, inputs, ONE, ENGINE)
            state = result.state
            reasons.append(result.reason[0])
            drifts.append(result.drift[0] != Drift.NONE)
            assert drifts[-1] == (state[REASON][0] != Drift.NONE)
        told[on_drift] = reasons
        assert any(drifts[30:])
        assert not any(drifts[:30])
    assert set(told[0]) == {""}
    assert [reason == "drift" for reason in told[1]] == drifts


@pytest.mark.parametrize(
    ("name", "key"), [("source", "ring"), ("norm", "pull"), ("cotta", "masked"), ("tent", "rings")]
)
def test_what_a_recipe_does_not_take_is_refused(name: str, key: str) -> None:
    with pytest.raises(RecipeError, match=f"restoration.{key}.*unknown"):
        build(name, {PREFIX + key: 1}, SOURCE, OPEN)
    with pytest.raises(RecipeError, match="unknown"):
        parameters(name, {PREFIX + key: 1})


def test_values_out_of_bounds_are_refused() -> None:
    for key, value in {"ring": 65, "ring_every": 0, "stochastic": 1.1, "on_drift": 0.5, "pull": np.nan}.items():
        with pytest.raises(RecipeError, match=key):
            build("tent", {PREFIX + key: value}, SOURCE, OPEN)


def test_a_ring_costs_what_it_says() -> None:
    def size(**policy: float) -> int:
        chosen = {PREFIX + key: value for key, value in policy.items()}
        return sum(value.nbytes for value in template(build("tent", chosen, SOURCE, OPEN), SOURCE).values())

    p, q = len(SOURCE.theta), len(SOURCE.stats)
    assert size(ring=3) - size() == 3 * (4 * p + 4 * q + 12) + 8
