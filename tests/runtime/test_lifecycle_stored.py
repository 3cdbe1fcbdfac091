"""What the life of a session left behind outlives the process, and a stay outside memory: nobody can tell."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import AlreadyExists, FailedPrecondition, ResourceExhausted
from acclimate.runtime.lifecycle_types import ForkSession, UpdateSession
from acclimate.runtime.sessions import shelving
from acclimate.runtime.types import Budget, EventKind
from tests.looped import looped
from tests.runtime.hooked import Gate, Hooked
from tests.runtime.serving import MODEL, differences, opened, session_of, whole
from tests.runtime.test_lifecycle import row
from tests.runtime.test_persistence import feed, learnt, stored


@looped
async def test_snapshots_pauses_and_changes_outlive_the_process(tmp_path: Path) -> None:
    async with stored(tmp_path) as before:
        await learnt(before, "s", 3)
        await before.lifecycle.take_snapshot(MODEL, "s", "early")
        early = row(before, "s")
        await feed(before, "s", 3, seed=10)
        await before.lifecycle.take_snapshot(MODEL, "s", "late")
        await before.lifecycle.update(UpdateSession(MODEL, "s", ("budget", "ttl"), Budget(5.0, 500.0), 900.0))
        await before.lifecycle.pause(MODEL, "s")
        await before.lifecycle.fork(ForkSession(MODEL, "s", "copy"))
        copy, view = row(before, "copy"), await before.get_session(MODEL, "s")
        page = await before.lifecycle.list_snapshots(MODEL, "s", 0, "")
    async with stored(tmp_path) as after:
        assert await after.get_session(MODEL, "s") == view
        assert (view.paused, view.ttl_seconds, view.budget) == (True, 900.0, Budget(5.0, 500.0))
        assert await after.lifecycle.list_snapshots(MODEL, "s", 0, "") == page
        await after.get_session(MODEL, "copy")
        assert row(after, "copy") == copy
        await feed(after, "s", 2, seed=30)
        assert session_of(after, "s").account.updates == 6, "it is paused still"
        assert (await after.lifecycle.restore(MODEL, "s", "early")).paused
        assert row(after, "s") == early
        await after.lifecycle.delete_snapshot(MODEL, "s", "early")
    async with stored(tmp_path) as third:
        left = await third.lifecycle.list_snapshots(MODEL, "s", 0, "")
        assert [view.snapshot_id for view in left.snapshots] == ["late"]
        await third.get_session(MODEL, "s")
        assert row(third, "s") == early


@looped
async def test_a_session_that_makes_room_takes_its_snapshots_along(tmp_path: Path) -> None:
    async with stored(tmp_path, sessions={"max_sessions": 2}) as service:
        await learnt(service, "s", 3)
        await service.lifecycle.take_snapshot(MODEL, "s", "x")
        then = row(service, "s")
        for name in "abcd":
            await opened(service, name, "source")
        watch = service.watch(MODEL, "s", {EventKind.RETURNED, EventKind.RESTORED})
        await service.lifecycle.restore(MODEL, "s", "x")
        assert row(service, "s") == then
        assert [(await anext(watch)).kind for _ in range(2)] == [EventKind.RETURNED, EventKind.RESTORED]
        fork = await service.lifecycle.fork(ForkSession(MODEL, "s", None, "x"))
        assert row(service, fork.session_id) == then, "a fork finds room as any new session does"
        with pytest.raises(AlreadyExists):
            await service.lifecycle.fork(ForkSession(MODEL, "s", "a"))


@looped
async def test_a_fork_is_refused_by_a_full_store_as_any_new_session_is(tmp_path: Path) -> None:
    async with stored(tmp_path, store_={"max_sessions": 1}) as service:
        await learnt(service, "s", 3)
        before = whole(service, "s")
        await shelving.sweep(service._parts.residency)
        with pytest.raises(ResourceExhausted) as full:
            await service.lifecycle.fork(ForkSession(MODEL, "s", "t"))
        assert full.value.reason == "STORE_FULL"
        assert not differences(before, whole(service, "s"))
        assert len(service._parts.table) == 1


@looped
async def test_a_session_does_not_leave_memory_while_the_guards_judge_its_snapshot(tmp_path: Path) -> None:
    gate = Gate()
    gate.open()
    engine = Hooked(reference_engine(), predict=gate)
    async with stored(tmp_path, engine=engine, sessions={"max_sessions": 2}) as service:
        await learnt(service, "s", 3)
        await service.lifecycle.take_snapshot(MODEL, "s", "x")
        gate.close()
        restoring = asyncio.ensure_future(service.lifecycle.restore(MODEL, "s", "x"))
        assert await asyncio.to_thread(gate.reached.wait, 60)
        for name in "abc":
            await opened(service, name, "source")
        assert session_of(service, "s").pins == 1
        gate.open()
        assert (await restoring).state == "adapted"
        assert session_of(service, "s").pins == 0


@looped
async def test_a_snapshot_of_another_bundle_is_neither_brought_back_nor_forked(tmp_path: Path) -> None:
    async with stored(tmp_path) as service:
        await learnt(service, "s", 3)
        await service.lifecycle.take_snapshot(MODEL, "s", "x")
        session = session_of(service, "s")
        foreign = dataclasses.replace(session.snapshots["x"].record, bundle="0" * 64)
        session.snapshots["x"] = dataclasses.replace(session.snapshots["x"], record=foreign)
        before = whole(service, "s")
        for call in (
            service.lifecycle.restore(MODEL, "s", "x"),
            service.lifecycle.fork(ForkSession(MODEL, "s", "t", "x")),
        ):
            with pytest.raises(FailedPrecondition) as caught:
                await call
            assert caught.value.reason == "BUNDLE_MISMATCH"
        assert not differences(before, whole(service, "s"))
        assert len(service._parts.table) == 1
