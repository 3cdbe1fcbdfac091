"""What a crash may lose, and what a store that is slow or full does to those who learn and those who ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from acclimate.adapters.outcome import Outcome
from acclimate.runtime.clock import ManualClock
from acclimate.runtime.errors import NotFound, ResourceExhausted, Unavailable
from acclimate.runtime.service import Service
from acclimate.runtime.sessions.journal import Journal
from acclimate.runtime.store.base import SessionRecord, Store
from acclimate.runtime.types import EventKind
from tests.looped import looped
from tests.polling import until_async
from tests.runtime.serving import MODEL, config, drifted, opened, predict, serving, session_of
from tests.runtime.shaky import Shaky, database
from tests.runtime.test_persistence import ROWS, feed


def settings(mode: str = "background", **store: Any) -> Any:
    return config(mode, store={"loss_commits": 4, "loss_seconds": 3600.0} | store)


def only(store: Store) -> SessionRecord:
    """The one record in a store."""
    (found,) = store.page(None, None, None, 9, 0.0)
    assert found.record is not None
    return found.record


def journal_of(service: Service) -> Journal:
    journal = service._parts.residency.journal
    assert journal is not None
    return journal


async def settled(service: Service) -> None:
    journal = journal_of(service)
    await until_async(lambda: not journal.failing, "the store to recover")
    while journal.commits:
        books = (journal._waiting, journal._flying)
        assert await journal.settle([key for book in books for key in (*book.committed, *book.deletions)])


@pytest.mark.parametrize("recipe", ["tent", "memo"])
@looped
async def test_replies_that_hang_on_a_step_do_not_hang_on_the_store(tmp_path: Path, recipe: str) -> None:
    store = Shaky(database(tmp_path))
    mode = "synchronous" if recipe == "tent" else "background"
    async with serving(settings(mode), store=store) as service:
        own = {"batch_rows": ROWS} if recipe == "tent" else {}
        await opened(service, "cam", recipe, **own)
        await settled(service)
        store.broken = True
        for seed in range(12):
            await predict(service, drifted(seed, ROWS), "cam")
        await until_async(lambda: journal_of(service).failing, "a write to fail")
        session = session_of(service, "cam")
        version = session.version
        for seed in range(3):
            await predict(service, drifted(seed, ROWS), "cam")
        assert session.version == version, "what cannot be stored is not learnt"
        if recipe == "memo":
            assert session.account.skipped[Outcome.SKIPPED_STORE.reason] >= 3
        else:
            assert len(session.buffer) >= 3 * ROWS, "their samples wait"
        store.broken = False
        await settled(service)
        await predict(service, drifted(5, ROWS), "cam")
        assert session.version > version


@looped
async def test_what_cannot_be_written_is_not_thrown_out_of_memory(tmp_path: Path) -> None:
    store = Shaky(database(tmp_path))
    async with serving(config(sessions={"max_sessions": 2}), store=store) as service:
        store.broken = True
        for name in ("a", "b"):
            await opened(service, name, "tent", batch_rows=ROWS)
        await feed(service, "a", 2)
        with pytest.raises(ResourceExhausted, match="cannot be written"):
            await opened(service, "c", "tent")
        assert [session.id for session in service._parts.table] == ["a", "b"]
        store.broken = False
        await until_async(lambda: not journal_of(service).failing, "the store to recover")
        await opened(service, "c", "tent")


@looped
async def test_a_deletion_is_on_disk_when_it_is_answered_or_the_answer_says_so(tmp_path: Path) -> None:
    store = Shaky(database(tmp_path))
    async with serving(settings(), store=store) as service:
        for name in ("a", "b"):
            await opened(service, name, "norm", batch_rows=ROWS)
        await settled(service)
        await service.delete_session(MODEL, "a")
        assert store.count() == 1
        store.broken = True
        with pytest.raises(Unavailable, match="will be deleted as soon as"):
            await service.delete_session(MODEL, "b")
        assert store.count() == 1
        with pytest.raises(NotFound):
            await service.get_session(MODEL, "b")
        assert (await service.list_sessions(None, 0, "")).sessions == ()
        assert (await opened(service, "b", "tent")).recipe == "tent", "its name is free"
        store.broken = False
        await settled(service)
    assert only(database(tmp_path)).recipe == "tent"


@looped
async def test_commits_are_written_soon_and_counters_now_and_then(tmp_path: Path) -> None:
    clock = ManualClock(100.0)
    store = database(tmp_path)
    async with serving(settings(loss_seconds=2.0, counter_seconds=50.0), store=store, clock=clock) as service:
        await opened(service, "cam", "source")
        assert journal_of(service).commits == 1
        clock.advance(1.0)
        await settled(service)
        for seed in range(5):
            await predict(service, drifted(seed), "cam")
        clock.advance(40.0)
        assert journal_of(service).commits == 0
        assert not journal_of(service).clean(session_of(service, "cam"))
        assert only(store).account["samples"] == 0
        clock.advance(10.0)
        journal_of(service)._wake.set()
        await until_async(lambda: journal_of(service).clean(session_of(service, "cam")), "the counters to be written")
        assert only(store).account["samples"] == 5


@looped
async def test_every_kind_of_change_is_journaled(tmp_path: Path) -> None:
    async with serving(settings(loss_commits=10**6), store=database(tmp_path), clock=ManualClock(1.0)) as service:
        await opened(service, "cam", "norm", batch_rows=ROWS)
        journal, session = journal_of(service), session_of(service, "cam")
        assert await journal.settle([session.key])
        for kind in EventKind:
            if kind in (EventKind.DELETED, EventKind.EXPIRED, EventKind.EVICTED, EventKind.RETURNED, EventKind.FENCED):
                continue
            service._parts.account.happened(session, kind, session.version)
            assert not journal.clean(session), kind
            light = kind in (EventKind.SKIPPED, EventKind.FEEDBACK, EventKind.DRIFTED)
            assert journal.commits == (0 if light else 1), kind
            assert await journal.settle([session.key])
        service._parts.account.happened(session, EventKind.SKIPPED, session.version - 1)
        assert journal.commits == 1, "the version moved"
