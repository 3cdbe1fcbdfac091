"""Sessions that are stored and those in memory, seen and handled alike: lists, deletion, watches, and the sweep."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

import structlog

from acclimate.runtime.errors import FailedPrecondition, Unavailable
from acclimate.runtime.sessions.keeping import EXPIRED_TOGETHER, RETRY_SECONDS, Keeping
from acclimate.runtime.sessions.residency import TOGETHER, Residency, busy
from acclimate.runtime.sessions.session import SessionKey
from acclimate.runtime.store.base import SessionRecord, StoreError, StoreSnapshot
from acclimate.runtime.types import Event, EventKind, SessionPage, SessionView

log = structlog.stdlib.get_logger("acclimate.sessions")

SWEEP_SECONDS = 1.0
# A large store is slow to count; between two counts the books say how many there are.
COUNT_EVERY = 10
# Views of stored sessions made without giving others their turn.
VIEWS_TOGETHER = 25


async def page(residency: Residency, model: str | None, size: int, token: str) -> SessionPage:
    """A page of all sessions, in one order; records that do not hold or fit are left out, and counted.

    Raises:
        InvalidArgument, NotFound: see `SessionTable.cursor`. Unavailable: the store cannot be read.
    """
    table, keeping = residency.table, residency.keeping
    size, after = table.cursor(model, size, token)
    records: dict[SessionKey, SessionRecord] = {}
    evictions = -1
    # A session that leaves memory while the store is read may be missed by both.
    while keeping is not None and evictions != residency.evictions:
        evictions = residency.evictions
        records = await _stored(residency, keeping, model, size, after)
    keys, following = table.page(model, size, after, records)
    views = []
    for place, key in enumerate(keys):
        view = _view(residency, key, records)
        views += [] if view is None else [view]
        if place % VIEWS_TOGETHER == VIEWS_TOGETHER - 1:
            await asyncio.sleep(0)
    return SessionPage(tuple(views), following)


async def _stored(
    residency: Residency, keeping: Keeping, model: str | None, size: int, after: SessionKey | None
) -> dict[SessionKey, SessionRecord]:
    tenant, journal = residency.table.key("", "")[0], residency.journal
    records: dict[SessionKey, SessionRecord] = {}
    while len(records) <= size:
        with keeping.told("*"):
            found = await keeping.thread.look(keeping.store.page, tenant, model, after, size + 1, residency.wall())
        for stored in found:
            after = stored.key
            if stored.record is None:
                log.error("a session's record does not hold; it is left as it is", session=after, error=stored.damage)
            elif residency.table.serves(after[1]) and not (journal and journal.deleting(after)):
                records[after] = stored.record
        if len(found) <= size:
            break
    return records


def _view(residency: Residency, key: SessionKey, records: dict[SessionKey, SessionRecord]) -> SessionView | None:
    session = residency.table.at(key)
    if session is not None:
        return session.view(residency.moment(session).budget)
    record = records.get(key)
    if record is None:
        return None
    try:
        view = residency.table.glimpse(record, residency.moment_after(record.account.get("samples", 0)))
        # A scrape may have seen it meanwhile.
        residency.account.census.changed(key)
        return view
    except FailedPrecondition as error:
        log.warning("a stored session does not fit what is served", session=key[2], error=error.message)
        return None


async def delete(residency: Residency, model: str, session_id: str) -> None:
    """Close and forget a session, in memory and in the store, whatever its record is worth.

    Raises:
        NotFound: no such model or session. Aborted: another daemon has it. Unavailable: the session is closed, and its
            record will be deleted as soon as the store can be written.
    """
    table, keeping, journal = residency.table, residency.keeping, residency.journal
    key = table.key(model, session_id)
    await residency.returning(key)
    session = table.find(model, session_id)
    if session is not None:
        table.close(session)
        residency.account.happened(session, EventKind.DELETED, session.version)
        if journal is not None and not await journal.settle([key]) and journal.deleting(key):
            raise Unavailable(
                "STORE_FAILING",
                f"session {session_id!r} is closed; its record will be deleted as soon as the store can be written",
                retry_after_seconds=RETRY_SECONDS,
                session=session_id,
            )
        return
    known = table.serves(model) and keeping is not None and journal is not None and not journal.deleting(key)
    if keeping is None or not known or not await keeping.remove(key):
        table.get(model, session_id)
        return
    residency.parking.forget(key)
    residency.stored -= 1
    table.deleted[model] += 1
    residency.account.absent(key, EventKind.DELETED)


def watch(
    residency: Residency, begin: Callable[[], AsyncIterator[Event]], model: str, session_id: str
) -> AsyncIterator[Event]:
    """A session's events, those of the watch that `begin` begins.

    Raises:
        NotFound: no such model or session; for one that is not in memory, with the first event that is asked for.
    """
    keeping = residency.keeping
    if keeping is None or not residency.table.serves(model) or residency.table.find(model, session_id) is not None:
        residency.table.get(model, session_id)
        return begin()
    return _watched(residency, keeping, begin(), residency.table.key(model, session_id))


async def _watched(
    residency: Residency, keeping: Keeping, events: AsyncIterator[Event], key: SessionKey
) -> AsyncIterator[Event]:
    if residency.table.at(key) is None and not await keeping.holds(key, residency.wall()):
        residency.table.get(*key[1:])
    async for event in events:
        yield event


async def sweep(residency: Residency, count: bool = True) -> None:
    """Delete what has outlived its time, let idle sessions leave memory, and `count` what is stored."""
    limit, leaving = residency.limits.idle_seconds, []
    for session in residency.table:
        idle = 0.0 if busy(session) else residency.idle_seconds(session)
        if session.ttl_seconds is not None and idle >= session.ttl_seconds:
            residency.table.close(session)
            residency.account.happened(session, EventKind.EXPIRED, session.version)
        elif limit and idle >= limit:
            leaving.append(session)
    for start in range(0, len(leaving), TOGETHER):
        await residency.leave(leaving[start : start + TOGETHER])
    keeping = residency.keeping
    if keeping is not None:
        for key in await keeping.thread.call(keeping.store.expire, residency.wall(), EXPIRED_TOGETHER):
            residency.parking.forget(key)
            residency.account.absent(key, EventKind.EXPIRED)
            residency.stored -= 1
    if keeping is not None and residency.journal is not None and count:
        stored = await keeping.thread.look(keeping.store.count)
        # Those that were opened or deleted and are not written yet count as what they will be.
        residency.stored = stored + residency.journal.growth(residency.table)


async def sweep_often(residency: Residency) -> None:
    """`sweep` until cancelled."""
    for turn in itertools.count():
        try:
            await sweep(residency, count=turn % COUNT_EVERY == 0)
        except StoreError as error:
            # Its writes have failed before, and whoever runs the daemon was told.
            log.debug("the store could not be swept", error=str(error))
        await asyncio.sleep(SWEEP_SECONDS)


def figures(residency: Residency) -> StoreSnapshot:
    """For metrics; safe on any thread."""
    if residency.keeping is None or residency.journal is None:
        return StoreSnapshot()
    return StoreSnapshot(
        **residency.journal.figures(),
        sessions=residency.stored,
        bytes=residency.keeping.store.size(),
        evictions=residency.evictions,
        returns=residency.returns,
        damaged=residency.keeping.damaged,
    )
