"""Two sessions never influence each other: not through batches, rows of a bank, budgets or counters."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.adapters.bank import State
from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes import build, template
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.step import Batch, StepResult, adaptation_step
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.engines.onnx import OnnxEngine
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.scheduler.drive import Slicing, run_step
from acclimate.runtime.types import Budget
from tests.polling import until_async
from tests.runtime.digits import picture
from tests.runtime.hooked import Hooked
from tests.runtime.operations import Bursts, Opening, Operation, operations, run
from tests.runtime.serving import config, differences, drifted, learnt, opened, predict, serving

MIXED = {
    "frozen": Opening("source"),
    "norm": Opening("norm", {"batch_rows": 4}),
    "tent": Opening("tent", {"batch_rows": 4, "lr": 0.01}),
    "eata": Opening("eata", {"batch_rows": 4, "margin_ratio": 1.0, "epsilon": 1.0}),
    "mate": Opening("eata", {"batch_rows": 4, "margin_ratio": 1.0, "epsilon": 1.0}),
    "poor": Opening("tent", {"batch_rows": 4, "lr": 0.01}, Budget(0.1, 2.0)),
}
DIGITS = {
    "norm": Opening("norm", {"batch_rows": 8}),
    "tent": Opening("tent", {"batch_rows": 8}),
    "eata": Opening("eata", {"batch_rows": 8, "epsilon": 1.0}),
    "mate": Opening("eata", {"batch_rows": 8, "epsilon": 1.0}),
}
LEARNING = ("norm", "tent", "eata")
WHOLE = Slicing(10_000, lambda: None)


def assert_alone_is_together(openings: dict[str, Opening], bursts: Bursts, engine: Engine, sample) -> None:
    together = asyncio.run(run(openings, bursts, engine, config(), sample))
    for name in openings:
        alone = asyncio.run(run({name: openings[name]}, bursts, engine, config(), sample))[name]
        assert together[name].seen == alone.seen, name
        assert not differences(together[name].state, alone.state), name


@given(operations(list(MIXED), max_rows=5))
def test_in_synchronous_mode_a_session_is_the_same_to_the_bit_with_others_as_alone(bursts: Bursts) -> None:
    assert_alone_is_together(MIXED, bursts, reference_engine(), drifted)


@settings(max_examples=3)
@given(operations(list(DIGITS), max_rows=16).filter(lambda bursts: sum(map(len, bursts)) > 8))
def test_the_same_on_onnx_runtime(digits_engine: OnnxEngine, bursts: Bursts) -> None:
    assert_alone_is_together(DIGITS, bursts, digits_engine, picture)


def test_the_operations_do_adapt_sessions_and_do_exhaust_budgets() -> None:
    """The property above would hold of sessions that never learn, too."""
    bursts = [[Operation(name, "predict", seed, 3) for name in MIXED] for seed in range(24)]
    traces = asyncio.run(run(MIXED, bursts, reference_engine(), config(), drifted))
    updates = {name: trace.state["account"].updates for name, trace in traces.items()}
    assert updates["frozen"] == 0
    assert all(updates[name] > 3 for name in updates if name != "frozen"), updates
    assert traces["poor"].state["account"].skipped["budget"] > 0
    assert len({trace.state["row.theta"] for name, trace in traces.items() if name in {"tent", "eata", "poor"}}) == 3


def shared(recipe: Recipe, engine: Engine, state: State, inputs: list[np.ndarray]) -> StepResult:
    group = np.repeat(np.arange(len(inputs)), [len(rows) for rows in inputs])
    return run_step(adaptation_step(recipe, engine.source, state, Batch(np.concatenate(inputs), group)), engine, WHOLE)


def one_of(state: State, session: int) -> State:
    return {name: value[session : session + 1] for name, value in state.items()}


def assert_sharing_changes_nothing(recipe: Recipe, engine: Engine, batches: list[list[np.ndarray]]) -> None:
    """`batches` are the samples of each session for each of several steps; only the last step is shared."""
    *earlier, last = batches
    first = template(recipe, engine.source)
    states = [{name: value[np.newaxis] for name, value in first.items()} for _ in last]
    for step in earlier:
        states = [shared(recipe, engine, state, [rows]).state for state, rows in zip(states, step, strict=True)]
    joined = {name: np.concatenate([state[name] for state in states]) for name in first}
    together = shared(recipe, engine, joined, last)
    for i, (state, rows) in enumerate(zip(states, last, strict=True)):
        alone = shared(recipe, engine, state, [rows])
        assert together.outcome[i] == alone.outcome[0]
        assert together.selected[i] == alone.selected[0]
        for name, value in alone.state.items():
            mine, theirs = one_of(together.state, i)[name].astype(np.float64), value.astype(np.float64)
            assert np.linalg.norm(mine - theirs) <= 1e-5 * np.linalg.norm(theirs), (i, name)


@pytest.mark.parametrize("name", LEARNING)
@given(data=st.data())
def test_sharing_a_step_changes_no_session_by_more_than_1e_5(name: str, data: st.DataObject) -> None:
    sessions, steps = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 4))
    rows = [data.draw(st.integers(2, 12)) for _ in range(sessions)]
    seed = data.draw(st.integers(0, 2**16))
    engine = reference_engine(seed=seed % 5)
    wild = [data.draw(st.sampled_from([-3.0, 0.0, 0.7, 3.0])) for _ in range(sessions)]
    batches = [
        [drifted(seed + 97 * turn + i, rows[i], shift=wild[i]) for i in range(sessions)] for turn in range(steps)
    ]
    assert_sharing_changes_nothing(build(name, {}, engine.source, Guards(canary_every=2)), engine, batches)


@pytest.mark.parametrize("name", LEARNING)
def test_the_same_on_onnx_runtime_at_the_step(name: str, digits_engine: OnnxEngine) -> None:
    recipe = build(name, {}, digits_engine.source, Guards(canary_every=2))
    batches = [[picture(31 * turn + i, 8 + i) for i in range(3)] for turn in range(3)]
    assert_sharing_changes_nothing(recipe, digits_engine, batches)


def test_in_background_mode_shared_steps_end_where_synchronous_ones_do() -> None:
    streams = {f"s{i}": [drifted(1000 * i + n) for n in range(48)] for i in range(4)}

    async def background() -> tuple[dict[str, dict[str, np.ndarray]], int]:
        engine = Hooked(reference_engine())
        async with serving(config("background"), engine) as service:
            for name in streams:
                await opened(service, name, "tent", batch_rows=16)
            for n in range(48):
                await asyncio.gather(*(predict(service, streams[name][n], name) for name in streams))
            await until_async(lambda: service.snapshot().models[0].steps.get("applied", 0) == 12, "twelve steps")
            return {name: learnt(service, name) for name in streams}, engine.most_groups

    async def alone(name: str) -> dict[str, np.ndarray]:
        async with serving(config()) as service:
            await opened(service, name, "tent", batch_rows=16)
            for inputs in streams[name]:
                await predict(service, inputs, name)
            return learnt(service, name)

    together, most_groups = asyncio.run(background())
    assert most_groups > 1, "no step was shared; the test shows nothing"
    for name in streams:
        for field, value in asyncio.run(alone(name)).items():
            np.testing.assert_allclose(together[name][field], value, rtol=1e-4, atol=1e-6, err_msg=f"{name} {field}")
