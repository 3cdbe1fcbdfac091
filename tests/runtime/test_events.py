"""Watching: events in the order in which they happened, a bounded queue, and watches that end."""

from __future__ import annotations

import asyncio
import gc

import pytest

from acclimate.runtime.errors import InvalidArgument, NotFound
from acclimate.runtime.events import QUEUE_LENGTH, REMEMBERED, EventHub
from acclimate.runtime.types import Event, EventKind, Feedback
from tests.runtime.serving import MODEL, config, drifted, opened, predict, serving

ROWS = 4


def event(number: int, session: str = "s", model: str = MODEL) -> Event:
    return Event(EventKind.APPLIED, model, session, float(number), number, number + 1)


def test_a_sessions_life_is_told_in_order() -> None:
    async def scenario() -> list[Event]:
        async with serving(config()) as service:
            events = service.watch(MODEL, None)
            await opened(service, "s", "eata", batch_rows=ROWS, margin_ratio=1.0, epsilon=1.0)
            for n in range(ROWS):
                await predict(service, drifted(n), "s", request_id=f"r{n}")
            await service.feedback(MODEL, "s", [Feedback("r0", 1), Feedback("r1", 2), Feedback("unknown", 0)])
            await service.reset_session(MODEL, "s")
            await service.delete_session(MODEL, "s")
            await opened(service, "picky", "eata", batch_rows=ROWS, margin_ratio=0.0)
            for n in range(ROWS):
                await predict(service, drifted(n), "picky")
            await predict(service, drifted(0), "seq", sequence_start=True, sequence_end=True)
        return [seen async for seen in events]

    seen = asyncio.run(scenario())
    assert [(e.session_id, e.kind, e.version_before, e.version_after, e.reason) for e in seen] == [
        ("s", EventKind.CREATED, 0, 0, ""),
        ("s", EventKind.APPLIED, 0, 1, ""),
        ("s", EventKind.FEEDBACK, 1, 1, ""),
        ("s", EventKind.RESET, 1, 2, ""),
        ("s", EventKind.DELETED, 2, 2, ""),
        ("picky", EventKind.CREATED, 0, 0, ""),
        ("picky", EventKind.SKIPPED, 0, 1, "not_selected"),
        ("seq", EventKind.CREATED, 0, 0, ""),
        ("seq", EventKind.DELETED, 0, 0, ""),
    ]
    assert [e.samples for e in seen if e.kind in (EventKind.APPLIED, EventKind.FEEDBACK)] == [ROWS, 2]
    assert all(e.cost_ms > 0 for e in seen if e.kind in (EventKind.APPLIED, EventKind.SKIPPED))


def test_a_watch_sees_only_what_it_asked_for() -> None:
    async def scenario() -> None:
        hub = EventHub()
        watches = {key: hub.watch(*key) for key in [(None, None), (MODEL, None), (MODEL, "s"), ("other", None)]}
        for told in (event(0), event(1, "t"), event(2, "s", "other")):
            hub.publish(told)
        hub.close()
        seen = {key: [told.version_before async for told in watch] for key, watch in watches.items()}
        assert seen == {(None, None): [0, 1, 2], (MODEL, None): [0, 1], (MODEL, "s"): [0], ("other", None): [2]}

    asyncio.run(scenario())


def test_a_watcher_that_falls_behind_loses_its_oldest_events_and_blocks_nobody() -> None:
    async def scenario() -> None:
        hub = EventHub()
        slow, fast = hub.watch(None, None), hub.watch(None, None)
        for number in range(QUEUE_LENGTH + 10):
            hub.publish(event(number))
            assert (await anext(fast)).version_before == number
        hub.close()
        seen = [(told.version_before, told.missed) async for told in slow]
        expected = [(11, True), *((number, False) for number in range(12, QUEUE_LENGTH + 10))]
        assert seen == expected, "one more than the excess makes room for the end, and the first tells of the loss"

    asyncio.run(scenario())


def test_a_watch_ends_with_the_hub_and_stays_ended() -> None:
    async def scenario() -> None:
        hub = EventHub()
        waiting = hub.watch(None, None)
        upcoming = asyncio.ensure_future(anext(waiting, None))
        await asyncio.wait((upcoming,), timeout=0)
        hub.close()
        assert await upcoming is None
        assert await anext(waiting, None) is None
        assert await anext(hub.watch(None, None), None) is None

    asyncio.run(scenario())


def test_a_watch_that_is_dropped_or_closed_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        hub = EventHub()
        dropped, closed, kept = (hub.watch(None, None) for _ in range(3))
        assert len(hub) == 3
        del dropped
        gc.collect()
        await closed.aclose()  # type: ignore[attr-defined]
        assert len(hub) == 1
        hub.publish(event(0))
        assert (await anext(kept)).version_before == 0

    asyncio.run(scenario())


def test_what_does_not_exist_cannot_be_watched() -> None:
    async def scenario() -> None:
        async with serving() as service:
            for model, session in (("nothing", None), (MODEL, "nobody"), ("nothing", "nobody")):
                with pytest.raises(NotFound):
                    service.watch(model, session)
            assert service.snapshot().watchers == 0

    asyncio.run(scenario())


def test_a_change_of_the_stream_is_told_and_counted() -> None:
    async def scenario() -> list[Event]:
        async with serving(config()) as service:
            await opened(service, "s", "norm", batch_rows=32)
            events = service.watch(MODEL, "s")
            for n in range(30):
                await predict(service, drifted(n, 32, shift=0.0, scale=1.0), "s")
            assert service.snapshot().models[0].drifts == {}
            for n in range(4):
                await predict(service, drifted(n, 32, shift=3.0, scale=3.0), "s")
            assert service.snapshot().models[0].drifts == {"statistics": 1}
        return [told async for told in events if told.kind is EventKind.DRIFTED]

    (told,) = asyncio.run(scenario())
    assert (told.reason, told.samples, told.version_before) == ("statistics", 32, told.version_after)


def test_a_periodic_reset_is_told_as_one() -> None:
    async def scenario() -> list[Event]:
        async with serving(config()) as service:
            await opened(service, "s", "rdumb", batch_rows=8, reset_every=3)
            events = service.watch(MODEL, "s")
            for n in range(6):
                await predict(service, drifted(n, 8), "s")
            assert service.snapshot().models[0].restorations == {"periodic": 2}
        return [told async for told in events if told.kind is EventKind.RESTORED]

    assert [told.reason for told in asyncio.run(scenario())] == ["periodic", "periodic"]


def test_a_watch_can_be_for_some_kinds_alone() -> None:
    async def scenario() -> None:
        hub = EventHub()
        watch = hub.watch(MODEL, None, {EventKind.RESET, EventKind.PAUSED})
        for number, kind in enumerate(EventKind):
            hub.publish(Event(kind, MODEL, "s", 0.0, number, number))
        hub.close()
        assert [told.kind async for told in watch] == [EventKind.RESET, EventKind.PAUSED]

    asyncio.run(scenario())


def test_a_watch_goes_on_after_the_event_that_it_names() -> None:
    async def scenario() -> None:
        hub = EventHub()
        first = hub.watch(None, None)
        for number in range(5):
            hub.publish(event(number, "st"[number % 2]))
        token = (await anext(first)).token
        later, one = hub.watch(None, None, after=token), hub.watch(MODEL, "t", after=token)
        hub.publish(event(5, "t"))
        hub.close()
        assert [(told.version_before, told.missed) async for told in later] == [(n, False) for n in range(1, 6)]
        assert [told.version_before async for told in one] == [1, 3, 5]

    asyncio.run(scenario())


def test_a_watch_is_told_when_its_place_is_forgotten_or_another_daemon_s() -> None:
    async def scenario() -> None:
        hub, other = EventHub(), EventHub()
        watch = hub.watch(None, None)
        for number in range(REMEMBERED):
            hub.publish(event(number))
        oldest = (await anext(watch)).token
        assert (await anext(hub.watch(None, None, after=oldest))).missed is False
        hub.publish(event(REMEMBERED))
        for asked in (hub, other):
            late = asked.watch(None, None, after=oldest)
            asked.publish(event(7777))
            assert [(told.version_before, told.missed) for told in [await anext(late)]] == [(7777, True)]
        for wrong in ("7", "x" * 32, oldest + "0", oldest.upper() + "G"):
            with pytest.raises(InvalidArgument, match="resume_token was not given out"):
                hub.watch(None, None, after=wrong)

    asyncio.run(scenario())
