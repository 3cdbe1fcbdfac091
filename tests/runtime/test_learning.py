"""Adaptation steps: what they do to sessions that are reset or closed meanwhile, and how a step can go wrong."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import numpy as np
import pytest

from acclimate.adapters.bank import State
from acclimate.adapters.guards import Guards
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.recipes import template
from acclimate.adapters.requests import Gradient
from acclimate.adapters.step import Batch
from acclimate.runtime.clock import ManualClock
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.scheduler.compute import compute_step
from acclimate.runtime.scheduler.drive import Slicing
from acclimate.runtime.service import Service
from acclimate.runtime.sessions.cohort import build_cohort, cohort_key
from acclimate.runtime.types import Budget, EventKind
from tests.polling import until_async
from tests.runtime.hooked import Gate, Hooked
from tests.runtime.serving import (
    MODEL,
    config,
    differences,
    drifted,
    learnt,
    opened,
    predict,
    serving,
    session_of,
    whole,
)

ROWS = 8


async def feed(service: Service, session: str, batches: int = 1, seed: int = 0) -> None:
    for n in range(batches * ROWS):
        await predict(service, drifted(seed + n), session)


def steps(service: Service, *reasons: str) -> int:
    model = service.snapshot().models[0]
    return sum(model.skipped.get(reason, 0) for reason in reasons) if reasons else sum(model.steps.values())


def pristine_row(service: Service, session: str) -> None:
    opened_now = session_of(service, session)
    for name, value in template(opened_now.cohort.recipe, opened_now.cohort.engine.source).items():
        np.testing.assert_array_equal(learnt(service, session)[name], value, err_msg=name)


async def stepping(service: Service, session: str, gate: Gate) -> None:
    """Feed a session until its step stands before the gate."""
    await feed(service, session)
    await until_async(gate.reached.is_set, "the step to reach the engine")


def test_predictions_are_answered_while_a_step_is_under_way() -> None:
    async def scenario() -> None:
        gate = Gate()
        async with serving(config("background"), Hooked(reference_engine(), vjp=gate)) as service:
            await opened(service, "s", "tent", batch_rows=ROWS)
            await stepping(service, "s", gate)
            for n in range(20):
                assert (await predict(service, drifted(n), "s")).parameters["acclimate_version"] == 0
            assert steps(service) == 0
            gate.open()
            await until_async(lambda: steps(service) >= 2, "both steps to be committed")
            assert (await predict(service, drifted(0), "s")).parameters["acclimate_version"] >= 2

    asyncio.run(scenario())


def test_a_session_reset_during_its_step_stays_reset_but_pays() -> None:
    async def scenario() -> None:
        gate, clock = Gate(), ManualClock()
        async with serving(config("background"), Hooked(reference_engine(), vjp=gate), clock) as service:
            await opened(service, "s", "tent", budget=Budget(0.0, 1e6), batch_rows=ROWS)
            await stepping(service, "s", gate)
            await service.reset_session(MODEL, "s")
            await predict(service, drifted(99), "s")
            gate.open()
            await until_async(lambda: steps(service, "stale") == 1, "the step to be found stale")
            pristine_row(service, "s")
            view = await service.get_session(MODEL, "s")
            assert (view.state, view.version, view.updates, view.buffered) == ("pristine", 1, 0, 1)
            assert view.budget_available_ms == pytest.approx(1e6 - view.adaptation_ms)
            assert view.adaptation_ms > 0

    asyncio.run(scenario())


def test_a_session_that_takes_over_a_row_is_untouched_by_its_predecessors_step() -> None:
    async def scenario() -> None:
        gate = Gate()
        async with serving(config("background"), Hooked(reference_engine(), vjp=gate)) as service:
            await opened(service, "s", "tent", batch_rows=ROWS)
            row = session_of(service, "s").row
            await opened(service, "mate", "tent", batch_rows=ROWS)
            await stepping(service, "s", gate)
            await service.delete_session(MODEL, "s")
            await opened(service, "s", "tent", batch_rows=ROWS)
            assert session_of(service, "s").row == row, "the row was not reused; the test shows nothing"
            before = whole(service, "s")
            gate.open()
            await until_async(lambda: steps(service, "stale") == 1, "the step to be found stale")
            assert not differences(before, whole(service, "s"))
            await feed(service, "s")
            await until_async(lambda: session_of(service, "s").account.updates == 1, "the successor's own step")

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["background", "synchronous"])
def test_an_engine_that_fails_in_a_step_costs_that_step_only(mode: str) -> None:
    async def scenario() -> None:
        broken = [True]

        def break_once(_: Any) -> None:
            if broken[0]:
                raise RuntimeError("no memory")

        async with serving(config(mode), Hooked(reference_engine(), vjp=break_once)) as service:
            await opened(service, "s", "tent", batch_rows=ROWS)
            row = learnt(service, "s")
            await feed(service, "s")
            await until_async(lambda: steps(service, "engine_error") == 1, "the step to fail")
            for name, value in learnt(service, "s").items():
                np.testing.assert_array_equal(value, row[name], err_msg=name)
            assert (await service.get_session(MODEL, "s")).state == "pristine"
            broken[0] = False
            await feed(service, "s")
            await until_async(lambda: session_of(service, "s").account.updates == 1, "the next step to succeed")

    asyncio.run(scenario())


class Diverging(Hooked):
    """Gradients of rows whose first feature is above 1000 are NaN, and so is everything of their groups."""

    def vjp(self, request: Gradient) -> Any:
        reply = super().vjp(request)
        wild = (request.rows.inputs[:, 0] > 1000).any()
        return dataclasses.replace(reply, grad_theta=reply.grad_theta * np.nan) if wild else reply


def test_repeated_roll_backs_restore_the_session_and_say_so() -> None:
    async def scenario() -> None:
        settings = config(adaptation={"max_consecutive_rollbacks": 3, "canary_every": 0})
        async with serving(settings, Diverging(reference_engine())) as service:
            await opened(service, "s", "tent", batch_rows=ROWS)
            await feed(service, "s", 2)
            assert (await service.get_session(MODEL, "s")).state == "adapted"
            events = service.watch(MODEL, "s")
            for _ in range(3 * ROWS):
                await predict(service, drifted(1, scale=0, shift=2000.0), "s")
            view = await service.get_session(MODEL, "s")
            assert (view.state, view.rollbacks, view.restorations, view.version) == ("pristine", 3, 1, 3)
            pristine_row(service, "s")
            frozen = await predict(service, drifted(7, 4))
            np.testing.assert_array_equal(
                (await predict(service, drifted(7, 4), "s")).outputs["logits"], frozen.outputs["logits"]
            )
        seen = [(e.kind, e.reason, e.version_before, e.version_after) async for e in events]
        assert seen == [(EventKind.ROLLED_BACK, "nonfinite", 2, 2)] * 3 + [(EventKind.RESTORED, "strikes", 2, 3)]

    asyncio.run(scenario())


def test_a_session_that_diverges_in_a_shared_step_does_not_cost_its_neighbours() -> None:
    """The engine's NaN reaches every row of the batch, as a product with a mixing matrix would carry it."""
    engine = Diverging(reference_engine())
    cohort = build_cohort(cohort_key(MODEL, "tent", {}, {"batch_rows": ROWS}), engine, Guards())
    state: State = cohort.bank.gather([cohort.bank.allocate() for _ in range(3)])
    samples = [drifted(1, ROWS), drifted(2, ROWS) + 2000.0, drifted(3, ROWS)]
    whole_step = Slicing(1000, lambda: None)
    together = compute_step(
        cohort, state, Batch(np.concatenate(samples), np.repeat(np.arange(3), ROWS)), whole_step
    ).result
    assert together.outcome.tolist() == [Outcome.APPLIED, Outcome.ROLLED_BACK_NONFINITE, Outcome.APPLIED]
    assert together.state["guards.strikes"].tolist() == [0, 1, 0]
    for i in (0, 2):
        one = {name: value[i : i + 1] for name, value in state.items()}
        alone = compute_step(cohort, one, Batch(samples[i], np.zeros(ROWS, np.intp)), whole_step).result
        for name, value in alone.state.items():
            np.testing.assert_array_equal(together.state[name][i], value[0], err_msg=name)


def test_what_the_budget_does_not_pay_for_is_skipped_until_it_refills() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with serving(config("background"), reference_engine(), clock) as service:
            # A step of eight rows is calibrated at 8 x 0.06 ms; the clock stands still, so nothing refills.
            await opened(service, "s", "tent", budget=Budget(refill_ms_per_s=0.1, capacity_ms=0.5), batch_rows=ROWS)
            await feed(service, "s")
            await until_async(lambda: steps(service) == 1, "the first step")
            assert session_of(service, "s").account.updates == 1
            await feed(service, "s")
            await until_async(lambda: steps(service, "budget") == 1, "the second step to be refused")
            view = await service.get_session(MODEL, "s")
            assert view.budget_available_ms < 0.5
            assert view.skipped == {"budget": 1}
            clock.advance(1e9)
            assert (await service.get_session(MODEL, "s")).budget_available_ms == 0.5
            await service.reset_session(MODEL, "s")
            # What steps cost on this machine is measured; grant what is needed for certain.
            await opened(service, "rich", "tent", budget=Budget(1e6, 1e9), batch_rows=ROWS)
            await feed(service, "rich", 2)
            await until_async(lambda: session_of(service, "rich").account.updates == 2, "steps that can be paid")
            model = service.snapshot().models[0]
            assert model.budget_denied_ms > 0
            assert model.budget_granted_ms > 0

    asyncio.run(scenario())


def test_in_synchronous_mode_a_refill_lets_the_session_go_on() -> None:
    async def scenario() -> list[str]:
        async with serving(config()) as service:
            events = service.watch(MODEL, None)
            # 0.48 ms a step, 0.8 s of samples between steps: every second step can be paid.
            await opened(service, "s", "tent", budget=Budget(refill_ms_per_s=0.3, capacity_ms=0.5), batch_rows=ROWS)
            await feed(service, "s", 8)
        return [event.reason or event.kind.value async for event in events][1:]

    outcomes = asyncio.run(scenario())
    assert outcomes[:2] == ["applied", "budget"]
    assert 2 <= outcomes.count("applied") < 8


def test_the_whole_process_has_a_budget_too() -> None:
    async def scenario() -> None:
        budget = {"process_refill_ms_per_s": 0.0, "process_capacity_ms": 0.5}
        plenty = Budget(1e6, 1e9)
        async with serving(config("background", budget=budget), reference_engine(), ManualClock()) as service:
            for name in ("a", "b"):
                await opened(service, name, "tent", budget=plenty, batch_rows=ROWS)
            await feed(service, "a")
            await until_async(lambda: steps(service) == 1, "the step that can be paid")
            await feed(service, "b")
            await until_async(lambda: steps(service, "budget") == 1, "the step that cannot")

    asyncio.run(scenario())
