"""Restoration as an operator and a client choose it, what is told of it, canary checks, and steps with a deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from acclimate.adapters.signals import SIGNALS
from acclimate.runtime.clock import ManualClock
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.types import CreateSession, Event, EventKind, Seed, SessionView
from tests.runtime.hooked import Hooked
from tests.runtime.serving import MODEL, config, drifted, learnt, opened, predict, serving

ROWS = 8
RING = {"restoration.ring": 3, "restoration.ring_every": 2, "restoration.every": 5}


async def lived(settings: Any, recipe: str, steps: int, **parameters: float) -> tuple[SessionView, list[Event], Any]:
    """A session after some steps: its view, what was told of it, and the model's figures."""
    async with serving(settings) as service:
        request = CreateSession(MODEL, "s", recipe, parameters={"batch_rows": ROWS} | parameters)
        await service.create_session(request)
        events = service.watch(MODEL, "s")
        for turn in range(steps):
            await predict(service, drifted(turn, ROWS), "s")
        view, model = await service.get_session(MODEL, "s"), service.snapshot().models[0]
    return view, [event async for event in events], model


def test_a_session_goes_back_to_the_version_of_its_best_checkpoint_and_says_so() -> None:
    async def scenario() -> None:
        async with serving(config()) as service:
            await service.create_session(CreateSession(MODEL, "s", "tent", {"batch_rows": ROWS} | RING))
            events, served = service.watch(MODEL, "s"), {}
            for turn in range(5):
                await predict(service, drifted(turn, ROWS), "s")
                state = learnt(service, "s")
                served[(await service.get_session(MODEL, "s")).version] = state["theta"].copy()
            view = await service.get_session(MODEL, "s")
            assert (view.state, view.version, view.updates, view.restorations) == ("adapted", 5, 5, 1)
            assert service.snapshot().models[0].restorations == {"periodic": 1}
        (told,) = [event async for event in events if event.kind is EventKind.RESTORED]
        assert (told.reason, told.version_before, told.version_after) == ("periodic", 4, 5)
        assert told.restored_to in (2, 4)
        np.testing.assert_array_equal(served[5], served[told.restored_to])
        assert view.theta_distance > 0

    asyncio.run(scenario())


def test_without_a_ring_it_goes_back_to_the_source_and_says_version_0() -> None:
    view, events, _ = asyncio.run(lived(config(), "tent", 3, **{"restoration.every": 3}))
    assert (view.state, view.theta_distance) == ("pristine", 0.0)
    assert [(e.reason, e.restored_to) for e in events if e.kind is EventKind.RESTORED] == [("periodic", 0)]


def test_the_configuration_is_the_default_and_a_session_may_choose_otherwise() -> None:
    settings = config(restoration={"every": 2, "ring": 2, "pull": 0.5})
    view, events, _ = asyncio.run(lived(settings, "tent", 4))
    assert [e.reason for e in events if e.kind is EventKind.RESTORED] == ["periodic"] * 2
    shown = {name: value for name, value in view.recipe_parameters.items() if name.startswith("restoration.") and value}
    assert shown == {
        "restoration.every": 2,
        "restoration.ring": 2,
        "restoration.ring_every": 16,
        "restoration.pull": 0.5,
    }
    view, events, _ = asyncio.run(lived(settings, "tent", 4, **{"restoration.every": 0}))
    assert EventKind.RESTORED not in {e.kind for e in events}
    # What does not apply to a recipe is no reason to refuse it where only the configuration says so.
    view, _, _ = asyncio.run(lived(settings, "norm", 1))
    assert "restoration.pull" not in view.recipe_parameters
    with pytest.raises(InvalidArgument, match=r"restoration\.pull"):
        asyncio.run(lived(settings, "norm", 1, **{"restoration.pull": 0.5}))


def test_a_ring_is_counted_in_the_sessions_bytes() -> None:
    one, _, _ = asyncio.run(lived(config(), "norm", 1))
    other, _, _ = asyncio.run(lived(config(), "norm", 1, **{"restoration.ring": 4}))
    source = reference_engine().source
    assert other.state_bytes - one.state_bytes == 4 * (4 * len(source.theta) + 4 * len(source.stats) + 12) + 8


def test_checkpoints_of_a_seeded_session_are_numbered_from_its_seed() -> None:
    """Version 1 is the seed's."""
    manifest = reference_engine().manifest
    seed = Seed(manifest.parameters.unpack(reference_engine().source.theta * np.float32(1.01)))

    async def scenario() -> list[Event]:
        async with serving(config()) as service:
            await service.create_session(CreateSession(MODEL, "s", "tent", {"batch_rows": ROWS} | RING, seed=seed))
            events = service.watch(MODEL, "s")
            for turn in range(5):
                await predict(service, drifted(turn, ROWS), "s")
        return [event async for event in events]

    (told,) = [event for event in asyncio.run(scenario()) if event.kind is EventKind.RESTORED]
    assert (told.version_before, told.version_after) == (5, 6)
    assert told.restored_to in (3, 5)


def test_levels_are_in_the_view_and_at_their_highest_in_the_figures() -> None:
    view, _, model = asyncio.run(lived(config(), "tent", 3))
    assert set(view.drift) == set(SIGNALS)
    assert all(view.drift[signal] > 0 for signal in SIGNALS)
    assert model.drift_max == view.drift
    gone, _, model = asyncio.run(lived(config(), "tent", 3, **{"restoration.every": 3}))
    assert set(gone.drift.values()) == set(model.drift_max.values()) == {0.0}


@pytest.mark.parametrize(("chosen", "heard"), [("page_hinkley", {"statistics"}), ("none", set())])
def test_the_configuration_says_which_detector_listens(chosen: str, heard: set[str]) -> None:
    async def scenario() -> set[str]:
        quiet = dict.fromkeys(SIGNALS, "none") | {"statistics": chosen}
        async with serving(config(drift=quiet)) as service:
            await opened(service, "s", "norm", batch_rows=32)
            for n in range(34):
                shift, scale = (0.0, 1.0) if n < 30 else (3.0, 3.0)
                await predict(service, drifted(n, 32, shift=shift, scale=scale), "s")
            return set(service.snapshot().models[0].drifts)

    assert asyncio.run(scenario()) == heard


@pytest.mark.parametrize(("every", "checks"), [(0, 0), (1, 6), (3, 2)])
def test_canaries_are_asked_as_often_as_configured(every: int, checks: int) -> None:
    source, asked = reference_engine().source, []
    engine = Hooked(reference_engine(), predict=lambda inputs: asked.append(inputs))

    async def scenario() -> None:
        async with serving(config(adaptation={"canary_every": every}), engine) as service:
            await opened(service, "s", "tent", batch_rows=ROWS)
            for turn in range(6):
                await predict(service, drifted(turn, ROWS), "s")

    asyncio.run(scenario())
    # The samples come in slices; the first of them says that a check has begun.
    assert sum(np.array_equal(inputs[0], source.canary_inputs[0]) for inputs in asked) == checks


class Slow:
    """A door that takes its time on a clock that only it moves."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def __call__(self, argument: Any) -> None:
        self.calls += 1
        self.clock.advance(self.seconds)


@pytest.mark.parametrize(("deadline", "stepped"), [(None, True), (1e6, True), (6.0, False)])
def test_a_memo_step_ends_before_its_requests_deadline_or_is_given_up(deadline: float | None, stepped: bool) -> None:
    clock, inputs = ManualClock(), drifted(1, ROWS)
    slow = Slow(clock, 1.0)
    engine = Hooked(reference_engine(), forward=slow, vjp=slow)

    async def scenario() -> None:
        async with serving(config("background"), engine, clock) as service:
            await opened(service, "s", "memo", views=4)
            events = service.watch(MODEL, "s")
            reply = await predict(service, inputs, "s", deadline=deadline)
            view = await service.get_session(MODEL, "s")
        told = [event async for event in events]
        frozen = reference_engine().frozen(inputs)
        assert np.array_equal(reply.outputs["logits"], frozen) != stepped
        assert (view.updates, view.skipped) == ((1, {}) if stepped else (0, {"deadline": 1}))
        if deadline is not None:
            assert clock.monotonic() < deadline
        assert told[-1].cost_ms > 0
        if not stepped:
            # What was computed until then is paid for.
            assert slow.calls == 5
            assert view.adaptation_ms == told[-1].cost_ms == 5000

    asyncio.run(scenario())


def test_a_memo_step_that_cannot_end_in_time_is_not_begun() -> None:
    clock, asked = ManualClock(), []
    engine = Hooked(reference_engine(), forward=asked.append)
    per_sample = engine.manifest.cost.vjp_ms / 1e3

    async def scenario() -> None:
        async with serving(config("background"), engine, clock) as service:
            await opened(service, "s", "memo", views=4)
            await predict(service, drifted(1, ROWS), "s", deadline=ROWS * per_sample / 2)
            view = await service.get_session(MODEL, "s")
            assert (view.skipped, view.adaptation_ms) == ({"deadline": 1}, 0.0)

    asyncio.run(scenario())
    assert asked == []
