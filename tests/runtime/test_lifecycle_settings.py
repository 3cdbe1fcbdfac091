"""Etags, updates and time-to-live: what a client may change, when, and what changes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.errors import (
    Aborted,
    AcclimateError,
    AlreadyExists,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from acclimate.runtime.lifecycle_types import ForkSession, UpdateSession
from acclimate.runtime.service import Service
from acclimate.runtime.sessions import shelving
from acclimate.runtime.types import Budget, CreateSession, Event, EventKind
from tests.runtime.serving import MODEL, config, differences, drifted, opened, predict, serving, session_of, whole

CALLS: dict[str, Callable[[Service, str], Awaitable[Any]]] = {
    "fork": lambda service, tag: service.lifecycle.fork(ForkSession(MODEL, "s", "t", etag=tag)),
    "snapshot": lambda service, tag: service.lifecycle.take_snapshot(MODEL, "s", "new", tag),
    "restore": lambda service, tag: service.lifecycle.restore(MODEL, "s", "old", tag),
    "pause": lambda service, tag: service.lifecycle.pause(MODEL, "s", tag),
    "resume": lambda service, tag: service.lifecycle.resume(MODEL, "s", tag),
    "update": lambda service, tag: service.lifecycle.update(UpdateSession(MODEL, "s", ("ttl",), None, 5.0, tag)),
    "delete or reset": lambda service, tag: service.lifecycle.expect(MODEL, "s", tag),
}


async def learning(service: Service) -> None:
    await opened(service, "s", "tent", batch_rows=4, lr=0.01)
    await predict(service, drifted(0, 4), "s")
    await service.lifecycle.take_snapshot(MODEL, "s", "old")


@pytest.mark.parametrize("call", CALLS)
def test_a_write_with_an_older_etag_changes_nothing_and_one_with_the_present_one_goes_through(call: str) -> None:
    async def scenario() -> None:
        async with serving() as service:
            await learning(service)
            stale = (await service.get_session(MODEL, "s")).etag
            await predict(service, drifted(1, 4), "s")
            before = whole(service, "s")
            for given in (stale, "x", stale.strip('W/"'), "W/" * 500):
                with pytest.raises(Aborted, match="get it again") as caught:
                    await CALLS[call](service, given)
                assert caught.value.reason == "ETAG_MISMATCH"
                assert caught.value.metadata["current"] == (await service.get_session(MODEL, "s")).etag
            assert not differences(before, whole(service, "s"))
            assert len((await service.list_sessions(None, 0, "")).sessions) == 1
            assert len(session_of(service, "s").snapshots) == 1
            await CALLS[call](service, (await service.get_session(MODEL, "s")).etag)
            await CALLS[call](service, "") if call not in ("fork", "snapshot") else None

    asyncio.run(scenario())


def test_an_etag_names_what_a_writer_overwrites_and_not_what_is_counted() -> None:
    async def scenario() -> list[str]:
        seen = []

        async def note() -> None:
            seen.append((await service.get_session(MODEL, "s")).etag)

        async with serving(clock=ManualClock(1e9)) as service:
            await learning(service)
            await note()
            await predict(service, drifted(1, 2), "s")
            await service.lifecycle.take_snapshot(MODEL, "s", "more")
            await note()
            assert seen[0] == seen[1]
            for change in (
                lambda: predict(service, drifted(2, 2), "s"),
                lambda: service.lifecycle.pause(MODEL, "s"),
                lambda: service.lifecycle.resume(MODEL, "s"),
                lambda: service.lifecycle.update(UpdateSession(MODEL, "s", ("ttl",), None, 9.0)),
                lambda: service.lifecycle.update(UpdateSession(MODEL, "s", ("budget",), Budget(1.0, 2.0))),
                lambda: service.reset_session(MODEL, "s"),
            ):
                await change()
                await note()
        return seen[1:]

    seen = asyncio.run(scenario())
    # Resumed, it is again what it was before it was paused.
    assert seen.pop(3) == seen[1]
    assert len(set(seen)) == len(seen) == 6
    assert all(tag.startswith('W/"') and tag.endswith('"') for tag in seen)


def test_an_update_changes_what_is_named_and_nothing_else() -> None:
    async def scenario() -> None:
        async with serving(config(budget={"refill_ms_per_s": 10.0, "capacity_ms": 100.0})) as service:
            await opened(service, "s", "tent", budget=Budget(1.0, 50.0), batch_rows=4)

            async def update(*paths: str, budget: Budget | None = None, ttl: float | None = None) -> tuple[Any, ...]:
                view = await service.lifecycle.update(UpdateSession(MODEL, "s", paths, budget, ttl))
                return view.budget.refill_ms_per_s, view.budget.capacity_ms, view.ttl_seconds

            new = Budget(7.0, 70.0)
            assert await update("budget.refill_ms_per_s", budget=new, ttl=3.0) == (7.0, 50.0, None)
            assert await update("budget.capacity_ms", budget=new) == (7.0, 70.0, None)
            assert await update("ttl", ttl=3.0) == (7.0, 70.0, 3.0)
            assert await update(budget=Budget(0.0, 0.0), ttl=0.0) == (7.0, 70.0, 3.0)
            assert await update("budget", "ttl", budget=Budget(2.0, 20.0), ttl=0.0) == (2.0, 20.0, None)
            assert await update("budget") == (10.0, 100.0, None), "absent is the configured default"

    asyncio.run(scenario())


def test_what_was_saved_up_stays_as_far_as_there_is_room() -> None:
    async def scenario() -> None:
        async with serving(config("background"), clock=ManualClock(100.0)) as service:
            await opened(service, "s", "tent", budget=Budget(1.0, 50.0), batch_rows=4)
            for capacity, left in ((80.0, 50.0), (20.0, 20.0), (80.0, 20.0)):
                view = await service.lifecycle.update(UpdateSession(MODEL, "s", ("budget",), Budget(1.0, capacity)))
                assert view.budget_available_ms == left

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("paths", "budget", "ttl", "reason"),
    [
        (("version",), None, None, "UPDATE_MASK_INVALID"),
        (("ttl", "x" * 500), None, 5.0, "UPDATE_MASK_INVALID"),
        (("budget.refill",), Budget(1.0, 1.0), None, "UPDATE_MASK_INVALID"),
        (("budget",), Budget(-1.0, 1.0), None, "BUDGET_INVALID"),
        (("ttl", "budget"), Budget(1.0, float("nan")), 5.0, "BUDGET_INVALID"),
        (("budget", "ttl"), Budget(1.0, 1.0), -1.0, "TTL_INVALID"),
        (("ttl",), None, float("nan"), "TTL_INVALID"),
        (("ttl",), None, 1e12, "TTL_INVALID"),
    ],
)
def test_an_update_that_is_not_acceptable_changes_nothing(
    paths: tuple[str, ...], budget: Budget | None, ttl: float | None, reason: str
) -> None:
    async def scenario() -> None:
        async with serving(clock=ManualClock(5.0)) as service:
            await learning(service)
            before, view = whole(service, "s"), await service.get_session(MODEL, "s")
            with pytest.raises(InvalidArgument) as caught:
                await service.lifecycle.update(UpdateSession(MODEL, "s", paths, budget, ttl))
            assert caught.value.reason == reason
            assert len(caught.value.message) < 400
            assert not differences(before, whole(service, "s"))
            assert await service.get_session(MODEL, "s") == view

    asyncio.run(scenario())


async def expired(service: Service) -> int:
    """How many sessions a sweep closes."""
    before = service.snapshot().models[0].expired
    await shelving.sweep(service._parts.residency)
    return service.snapshot().models[0].expired - before


def test_sessions_that_nobody_uses_expire_and_others_do_not() -> None:
    async def scenario() -> list[Event]:
        clock = ManualClock(1000.0)
        async with serving(config(sessions={"default_ttl_seconds": 50.0}), clock=clock) as service:
            watch = service.watch(MODEL, None, {EventKind.EXPIRED})

            async def open_for(name: str, ttl: float | None) -> float | None:
                view = await service.create_session(CreateSession(MODEL, name, "source", ttl_seconds=ttl))
                return view.ttl_seconds

            assert [await open_for(*given) for given in (("short", 10.0), ("usual", None), ("ever", 0.0))] == [
                10.0, 50.0, None,
            ]  # fmt: skip
            await service.lifecycle.fork(ForkSession(MODEL, "short", "as-its-source"))
            await service.lifecycle.fork(ForkSession(MODEL, "short", "longer", ttl_seconds=30.0))
            await service.lifecycle.fork(ForkSession(MODEL, "ever", "ever-too"))
            await predict(service, drifted(0), "sequence", sequence_start=True)

            async def expired(seconds: float) -> int:
                clock.advance(seconds)
                before = len(service._parts.table)
                await shelving.sweep(service._parts.residency)
                return before - len(service._parts.table)

            assert await expired(9.0) == 0
            await predict(service, drifted(0), "as-its-source")
            assert await expired(2.0) == 1, "short"
            assert await expired(9.0) == 1, "the copy, since it was used later"
            session_of(service, "longer").pins = 1
            assert await expired(1000.0) == 2, "usual and sequence, but none that a request is waiting for"
            left = [view.session_id for view in (await service.list_sessions(None, 0, "")).sessions]
            assert left == ["ever", "ever-too", "longer"]
            with pytest.raises(NotFound):
                await predict(service, drifted(0), "short")
            figures = service.snapshot().models[0]
            assert (figures.expired, figures.forked, figures.sessions_deleted) == (4, 3, 4)
        return [event async for event in watch]

    told = asyncio.run(scenario())
    assert [event.session_id for event in told] == ["short", "as-its-source", "usual", "sequence"]


def test_a_daemon_looks_for_them_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        clock = ManualClock(0.0)
        async with serving(clock=clock) as service:
            watch = service.watch(MODEL, None, {EventKind.EXPIRED})
            await service.create_session(CreateSession(MODEL, "s", ttl_seconds=10.0))
            clock.advance(11.0)
            assert (await asyncio.wait_for(anext(watch), 60)).session_id == "s"

    monkeypatch.setattr(shelving, "SWEEP_SECONDS", 0.01)
    asyncio.run(scenario())


@pytest.mark.parametrize("ttl", [-1.0, float("nan"), float("inf"), 1e10])
def test_a_time_to_live_that_is_none_opens_no_session(ttl: float) -> None:
    async def scenario() -> None:
        async with serving() as service:
            await opened(service, "s", "source")
            with pytest.raises(InvalidArgument, match="ttl is") as caught:
                await service.create_session(CreateSession(MODEL, "new", ttl_seconds=ttl))
            assert (caught.value.reason, caught.value.metadata["field"]) == ("TTL_INVALID", "ttl")
            with pytest.raises(InvalidArgument):
                await service.lifecycle.fork(ForkSession(MODEL, "s", "new", ttl_seconds=ttl))
            assert len((await service.list_sessions(None, 0, "")).sessions) == 1

    asyncio.run(scenario())


FORKS: dict[str, tuple[ForkSession, type[AcclimateError], str]] = {
    "no source": (ForkSession(MODEL, "nobody", "t"), NotFound, "SESSION_NOT_FOUND"),
    "no model": (ForkSession("none", "s", "t"), NotFound, "MODEL_NOT_FOUND"),
    "no snapshot": (ForkSession(MODEL, "s", "t", "never"), NotFound, "SNAPSHOT_NOT_FOUND"),
    "a taken id": (ForkSession(MODEL, "s", "s"), AlreadyExists, "SESSION_EXISTS"),
    "an impossible id": (ForkSession(MODEL, "s", "a b"), InvalidArgument, "SESSION_ID_INVALID"),
    "a bad budget": (ForkSession(MODEL, "s", "t", budget=Budget(-1.0, 0.0)), InvalidArgument, "BUDGET_INVALID"),
}


@pytest.mark.parametrize("case", FORKS)
def test_a_fork_that_is_refused_opens_nothing(case: str) -> None:
    async def scenario() -> None:
        wanted, error, reason = FORKS[case]
        async with serving() as service:
            await learning(service)
            before = whole(service, "s")
            with pytest.raises(error) as caught:
                await service.lifecycle.fork(wanted)
            assert caught.value.reason == reason
            assert not differences(before, whole(service, "s"))
            assert len((await service.list_sessions(None, 0, "")).sessions) == 1

    asyncio.run(scenario())


def test_forks_count_as_sessions_and_are_told_of() -> None:
    async def scenario() -> list[Event]:
        async with serving(config(sessions={"max_sessions": 2})) as service:
            await learning(service)
            watch = service.watch(MODEL, None)
            fork = await service.lifecycle.fork(ForkSession(MODEL, "s", None, "old", Budget(1.0, 2.0)))
            assert fork.budget == Budget(1.0, 2.0)
            with pytest.raises(ResourceExhausted, match="max_sessions"):
                await service.lifecycle.fork(ForkSession(MODEL, "s"))
            await service.lifecycle.restore(MODEL, "s", "old")
            await service.lifecycle.delete_snapshot(MODEL, "s", "old")
            await service.delete_session(MODEL, fork.session_id)
        return [event async for event in watch]

    created, forked, restored, forgotten, deleted = asyncio.run(scenario())
    assert (created.kind, forked.kind, forked.source, forked.snapshot) == (
        EventKind.CREATED, EventKind.FORKED, "s", "old",
    )  # fmt: skip
    assert (forked.version_before, forked.version_after) == (0, 1)
    assert (restored.kind, restored.reason, restored.snapshot) == (EventKind.RESTORED, "snapshot", "old")
    assert (restored.version_before, restored.version_after, restored.restored_to) == (1, 2, 1)
    assert (forgotten.kind, deleted.kind) == (EventKind.SNAPSHOT_DELETED, EventKind.DELETED)
