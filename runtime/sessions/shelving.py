"""Sessions that are stored and those in memory, seen and handled alike: lists, deletion, watches, and the sweep."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

import structlog

from acclimate.runtime.errors import Unavailable
from acclimate.runtime.sessions.keeping import EXPIRED_TOGETHER, RETRY_SECONDS, Keeping
from acclimate.runtime.sessions.residency import TOGETHER, Residency, busy
from acclimate.runtime.sessions.session import SessionKey
from acclimate.runtime.store.base import StoreError, StoreSnapshot
from acclimate.runtime.types import Event, EventKind

log = structlog.stdlib.get_logger("acclimate.sessions")

SWEEP_SECONDS = 1.0
# A large store is slow to count; between two counts the books say how many there are.
COUNT_EVERY = 10


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
    if keeping is None or not known or (size := await keeping.remove(key)) is None:
        table.get(model, session_id)
        return
    table.deleted[model] += 1
    residency.removed(key, size, EventKind.DELETED)


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
    # Where nothing is stored, nothing can leave.
    limit, leaving = 0.0 if residency.journal is None else residency.limits.idle_seconds, []
    for session in residency.table:
        ttl = session.ttl_seconds
        # The cheapest question first: asked of thousands of sessions, all of them hold everybody up.
        if ttl is None and not limit:
            continue
        idle = residency.idle_seconds(session)
        over, leaves = ttl is not None and idle >= ttl, 0 < limit <= idle
        if not (over or leaves) or busy(session):
            continue
        if over:
            residency.table.close(session)
            residency.account.happened(session, EventKind.EXPIRED, session.version)
        else:
            leaving.append(session)
    for start in range(0, len(leaving), TOGETHER):
        await residency.leave(leaving[start : start + TOGETHER])
    keeping = residency.keeping
    if keeping is not None:
        gone = await keeping.thread.call(keeping.store.expire, residency.wall(), EXPIRED_TOGETHER)
        for key, size in gone.items():
            residency.removed(key, size, EventKind.EXPIRED)
    if count:
        await recount(residency)


async def recount(residency: Residency) -> None:
    """Look how much is stored: other daemons on the same store open and delete sessions, too."""
    keeping, journal = residency.keeping, residency.journal
    if keeping is None or journal is None:
        return
    before = journal.mark, residency.stored
    usage = await keeping.thread.look(keeping.store.usage)
    quiet = not journal.commits and before == (journal.mark, residency.stored)
    # Those that were opened or deleted and are not written yet count as what they will be.
    residency.stored = sum(tenant.sessions for tenant in usage.values()) + journal.growth(residency.table)
    if quiet:
        residency.table.recounted(usage)


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
