"""Sessions of a recipe with a pace, in the daemon: resting is free, and what cannot be paid for is never guessed."""

from __future__ import annotations

import asyncio

import numpy as np

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.generation.model import answers_arrays
from acclimate.runtime.service import Service
from acclimate.runtime.types import Budget, EventKind
from tests.polling import until_async
from tests.runtime.hooked import Gate, Hooked
from tests.runtime.serving import MODEL, PLENTY_FOR_ALL, config, drifted, learnt, opened, predict, serving, session_of

ROWS = 16
PACE = {"batch_rows": ROWS, "eager": ROWS, "growth": 4.0, "every": 1e6}


async def feed(service: Service, session: str, turns: range, shift: float = 0.7, scale: float = 1.6) -> None:
    for turn in turns:
        await predict(service, drifted(turn, ROWS, shift=shift, scale=scale), session)


def test_a_session_that_rests_pays_nothing_asks_nothing_and_serves_as_before() -> None:
    async def scenario() -> None:
        calls: list[str] = []
        engine = Hooked(
            reference_engine(),
            forward=lambda *_: calls.append("forward"),
            vjp=lambda *_: calls.append("vjp"),
        )
        async with serving(config(), engine) as service:
            await opened(service, "s", "auto", **PACE)
            await feed(service, "s", range(2))
            before, row = await service.get_session(MODEL, "s"), learnt(service, "s")
            folded, said = session_of(service, "s").folded, len(calls)
            events = service.watch(MODEL, "s")
            await feed(service, "s", range(2, 4))
            after = await service.get_session(MODEL, "s")
            assert len(calls) == said
            assert session_of(service, "s").folded is folded
            assert (after.version, after.adaptation_ms) == (before.version, before.adaptation_ms)
            assert after.budget_available_ms == before.budget_available_ms
            assert after.skipped["resting"] - before.skipped.get("resting", 0) == 2
            np.testing.assert_array_equal(learnt(service, "s")["theta"], row["theta"])
        told = [(event.kind, event.reason, event.cost_ms) async for event in events]
        assert told == [(EventKind.SKIPPED, "resting", 0.0)] * 2

    asyncio.run(scenario())


def test_a_step_that_some_sessions_rest_through_is_paid_for_by_the_others() -> None:
    async def scenario() -> None:
        settings = config("background", budget=PLENTY_FOR_ALL, adaptation={"max_step_rows": 4 * ROWS})
        async with serving(settings, clock=ManualClock()) as service:
            await opened(service, "old", "auto", budget=Budget(0.0, 1e6), **PACE)
            await opened(service, "new", "auto", budget=Budget(0.0, 1e6), **PACE)
            old, new = session_of(service, "old"), session_of(service, "new")
            state = old.cohort.bank.gather([old.row])
            old.cohort.bank.scatter([old.row], state | {"pace.due": np.full(1, 1e6, np.float32)})
            for session in (old, new):
                inputs = drifted(0, ROWS)
                session.buffer.extend(inputs, "r", answers_arrays(service._parts.engines[MODEL]).frozen(inputs))
            await service._parts.learner.step([old, new])
            assert old.account.adaptation_ms == 0 < new.account.adaptation_ms
            assert dict(old.account.skipped) == {"resting": 1}
            views = [await service.get_session(MODEL, name) for name in ("old", "new")]
            assert views[0].budget_available_ms == 1e6 > views[1].budget_available_ms

    asyncio.run(scenario())


def test_a_starving_session_keeps_what_it_knows_while_its_stream_stays_and_goes_back_when_it_changes() -> None:
    async def scenario() -> None:
        async with serving(config()) as service:
            await opened(service, "s", "auto", **PACE)
            await feed(service, "s", range(3))
            session = session_of(service, "s")
            bank = session.cohort.bank
            broke = {name: np.zeros(1) for name in ("budget.tokens_ms", "budget.refill_ms_per_s", "budget.capacity_ms")}
            bank.scatter([session.row], bank.gather([session.row]) | broke)
            adapted = await service.get_session(MODEL, "s")
            assert adapted.state == "adapted"
            await feed(service, "s", range(3, 12))
            same = await service.get_session(MODEL, "s")
            assert (same.state, same.version) == ("adapted", adapted.version)
            assert same.skipped["budget"] > 0
            events = service.watch(MODEL, "s")
            await feed(service, "s", range(50, 51), shift=-3.0, scale=4.0)
            gone = await service.get_session(MODEL, "s")
            assert (gone.state, gone.restorations) == ("pristine", 1)
            assert service.snapshot().models[0].restorations == {"starved": 1}
            reply = await predict(service, drifted(99), "s")
            frozen = answers_arrays(service._parts.engines[MODEL]).frozen(drifted(99))
            np.testing.assert_array_equal(next(iter(reply.outputs.values())), frozen)
        kinds = [(event.kind, event.reason) async for event in events]
        assert kinds[:2] == [(EventKind.SKIPPED, "budget"), (EventKind.RESTORED, "starved")]

    asyncio.run(scenario())


def test_a_session_whose_steps_fall_behind_is_answered_by_the_source_until_they_catch_up() -> None:
    """What it learnt is kept: a busy second must not cost what a day has taught."""

    async def scenario() -> None:
        gate, engine = Gate(), reference_engine()
        gate.open()
        async with serving(config("background"), Hooked(engine, forward=lambda _: gate(None))) as service:
            await opened(service, "s", "auto", batch_rows=ROWS, eager=1e9)
            session = session_of(service, "s")
            await feed(service, "s", range(2))
            await until_async(lambda: session.account.updates == 2, "two updates")
            events = service.watch(MODEL, "s")
            gate.close()
            sample = drifted(77)
            # One batch is in the step before the gate, and two wait: not yet behind.
            await feed(service, "s", range(2, 5))
            await until_async(gate.reached.is_set, "a step to reach the engine")
            adapted = next(iter((await predict(service, sample, "s", acclimate_adapt=False)).outputs.values()))
            assert not np.array_equal(adapted, engine.frozen(sample))
            await feed(service, "s", range(5, 6))
            reply = await predict(service, sample, "s", acclimate_adapt=False)
            np.testing.assert_array_equal(next(iter(reply.outputs.values())), engine.frozen(sample))
            behind = await service.get_session(MODEL, "s")
            assert (behind.state, behind.version, behind.restorations) == ("adapted", 3, 0)
            assert behind.theta_distance > 0
            assert service.snapshot().models[0].fell_behind == 1
            gate.open()
            await until_async(lambda: len(session.buffer) == 0 and not session.stepping, "the steps to catch up")
            caught = next(iter((await predict(service, sample, "s", acclimate_adapt=False)).outputs.values()))
            assert not np.array_equal(caught, engine.frozen(sample))
        told = [(event.kind, event.reason) async for event in events]
        assert (EventKind.SKIPPED, "behind") in told
        assert EventKind.RESTORED not in [kind for kind, _ in told]

    asyncio.run(scenario())


def test_a_session_that_was_behind_and_rests_serves_what_it_knew() -> None:
    async def scenario() -> None:
        async with serving(config("background")) as service:
            await opened(service, "s", "auto", **PACE)
            session = session_of(service, "s")
            await feed(service, "s", range(1))
            await until_async(lambda: session.account.updates == 1, "an update")
            folded = session.folded
            session.fall_behind()
            await feed(service, "s", range(1, 2))
            await until_async(lambda: session.account.skipped["resting"] == 1, "a rest")
            assert session.folded is not None and folded is not None
            for was, now in zip(folded.arrays, session.folded.arrays, strict=True):
                np.testing.assert_array_equal(was, now)
            assert not session.behind

    asyncio.run(scenario())
