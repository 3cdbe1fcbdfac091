"""What a tenant's quota counts: sessions wherever they are, their snapshots, and nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.errors import NotFound, ResourceExhausted
from acclimate.runtime.security.caller import Caller, Role, enter
from acclimate.runtime.service import Service
from acclimate.runtime.sessions import shelving
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.store.base import HEADER_BYTES, Usage
from tests.looped import looped
from tests.polling import until_async
from tests.runtime.serving import MODEL, opened, session_of
from tests.runtime.shaky import database
from tests.runtime.test_persistence import feed, stored

ROWS = 8
SHARE = {"sessions": 3, "state_bytes": 0}


@asynccontextmanager
async def tenant(folder: Path, name: str = "acme", clock: Any = None, **sections: Any) -> AsyncIterator[Service]:
    """The service, asked by a tenant that may have three sessions."""
    sections = {"quotas": SHARE} | sections
    async with stored(folder, clock=clock, **sections) as service:
        enter(Caller(name, Role.TENANT))
        yield service


def books(service: Service, name: str = "acme") -> Usage:
    usage = service._parts.table._quotas._usage(name)  # type: ignore[union-attr]
    return Usage(usage.sessions, usage.state_bytes)


async def gone(service: Service, *names: str) -> None:
    """Let sessions leave memory."""
    leaving: list[Session] = [session_of(service, name) for name in names]
    await service._parts.residency.leave(leaving)
    assert not any(session.open for session in leaving)


@looped
async def test_leaving_memory_and_returning_change_nothing(tmp_path: Path) -> None:
    async with tenant(tmp_path) as service:
        for name in "abc":
            await opened(service, name, "tent", batch_rows=ROWS)
        before = books(service)
        assert before == Usage(3, 3 * session_of(service, "a").cohort.bank.row_bytes)
        await gone(service, "a", "b")
        assert books(service) == before
        with pytest.raises(ResourceExhausted) as refused:
            await opened(service, "d", "tent", batch_rows=ROWS)
        assert (refused.value.reason, refused.value.metadata["quota"]) == ("QUOTA_EXCEEDED", "sessions")
        await feed(service, "a")
        assert books(service) == before
        await service.list_sessions(None, 0, "")
        assert books(service) == before, "looking at a stored session is not having another one"
        await service.delete_session(MODEL, "b")
        assert books(service).sessions == 2
        await opened(service, "d", "tent", batch_rows=ROWS)


@looped
async def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    async with tenant(tmp_path) as service:
        for name in "abc":
            await opened(service, name, "tent", batch_rows=ROWS)
        await service.lifecycle.take_snapshot(MODEL, "a", "kept")
        before, size = books(service), session_of(service, "a").cohort.bank.row_bytes
        enter(Caller("other", Role.TENANT))
        await opened(service, "own", "tent", batch_rows=ROWS)
    async with tenant(tmp_path) as service:
        assert (books(service), books(service, "other").sessions, service._parts.residency.stored) == (before, 1, 4)
        with pytest.raises(ResourceExhausted):
            await opened(service, "d", "tent", batch_rows=ROWS)
        assert (await service.get_session(MODEL, "a")).updates == 0
        assert books(service) == before
        for name in "ab":
            await service.delete_session(MODEL, name)
        assert books(service) == Usage(1, size)
        await opened(service, "d", "tent", batch_rows=ROWS)


@looped
async def test_snapshots_count_as_bytes_and_are_refused_beyond_the_quota(tmp_path: Path) -> None:
    async with tenant(tmp_path, "sizing") as service:
        await opened(service, "s", "tent", batch_rows=ROWS)
        size = session_of(service, "s").cohort.bank.row_bytes
        await service.delete_session(MODEL, "s")
    room = 3 * size + 2 * HEADER_BYTES
    async with tenant(tmp_path, quotas={"sessions": 3, "state_bytes": room}) as service:
        await opened(service, "s", "tent", batch_rows=ROWS)
        for name in ("one", "two"):
            await service.lifecycle.take_snapshot(MODEL, "s", name)
        assert books(service) == Usage(1, room)
        with pytest.raises(ResourceExhausted) as refused:
            await service.lifecycle.take_snapshot(MODEL, "s", "three")
        assert refused.value.metadata["quota"] == "state_bytes"
        assert len((await service.lifecycle.list_snapshots(MODEL, "s", 0, "")).snapshots) == 2
        with pytest.raises(ResourceExhausted):
            await opened(service, "t", "tent", batch_rows=ROWS)
        await service.lifecycle.delete_snapshot(MODEL, "s", "one")
        await opened(service, "t", "tent", batch_rows=ROWS)
        assert books(service) == Usage(2, 3 * size + HEADER_BYTES)
        await gone(service, "s", "t")
        assert books(service) == Usage(2, 3 * size + HEADER_BYTES)
        await service.delete_session(MODEL, "s")
        assert books(service) == Usage(1, size), "its snapshots went with it"


@looped
async def test_sessions_whose_time_has_come_are_counted_no_more(tmp_path: Path) -> None:
    clock = ManualClock(1000.0)
    async with tenant(tmp_path, clock=clock, sessions={"default_ttl_seconds": 10.0}) as service:
        for name in ("live", "away"):
            await opened(service, name, "tent", batch_rows=ROWS)
        await gone(service, "away")
        clock.now += 11.0
        await shelving.sweep(service._parts.residency)
        await until_async(lambda: books(service) == Usage(), "both to be counted no more")
        with pytest.raises(NotFound):
            await service.get_session(MODEL, "away")


@looped
async def test_what_another_daemon_opened_on_the_store_is_counted_after_a_while(tmp_path: Path) -> None:
    async with tenant(tmp_path) as one:
        await opened(one, "a", "tent", batch_rows=ROWS)
        assert await one._parts.residency.journal.settle([session_of(one, "a").key])  # type: ignore[union-attr]
        async with tenant(tmp_path) as two:
            await opened(two, "b", "tent", batch_rows=ROWS)
            assert books(two).sessions == 2
        await shelving.recount(one._parts.residency)
        await shelving.recount(one._parts.residency)
        assert (books(one).sessions, one._parts.residency.stored) == (2, 2)
    store = database(tmp_path)
    assert store.usage()["acme"].sessions == 2
    store.close()
