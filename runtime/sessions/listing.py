"""Pages of sessions, those in memory and those in the store alike, in one order, as a filter wants them."""

from __future__ import annotations

import asyncio
import heapq

import structlog

from acclimate.runtime.errors import FailedPrecondition, PermissionDenied
from acclimate.runtime.repository.adoption import Dropped
from acclimate.runtime.security.access import EVERY_TENANT
from acclimate.runtime.security.caller import current
from acclimate.runtime.sessions import filters
from acclimate.runtime.sessions.filters import Facts
from acclimate.runtime.sessions.keeping import Keeping
from acclimate.runtime.sessions.paging import decode, encode, mark, page_size
from acclimate.runtime.sessions.residency import Residency
from acclimate.runtime.sessions.session import SessionKey
from acclimate.runtime.sessions.states import SessionState
from acclimate.runtime.store.base import SessionRecord
from acclimate.runtime.types import SessionPage, SessionQuery, SessionView

log = structlog.stdlib.get_logger("acclimate.sessions")

# Views of stored sessions made without giving others their turn.
VIEWS_TOGETHER = 25
# Sessions that are looked at for one page; a filter that few of them pass ends a page early.
LOOKED_AT_MOST = 5000

Records = dict[SessionKey, SessionRecord]


async def page(residency: Residency, query: SessionQuery) -> SessionPage:
    """A page of all sessions, in one order; records that do not hold or fit are left out, and counted.

    A page may hold fewer than were asked for, or none, and yet be followed by others.

    Raises:
        InvalidArgument: a negative size, a filter that cannot be read, a token that this daemon did not give out, or
            for another list. NotFound: no such model. PermissionDenied: the caller may not see all tenants' sessions.
        Unavailable: the store cannot be read.
    """
    size, wanted = page_size(query.page_size), filters.parse(query.filter)
    tenant = None if query.every_tenant else current().tenant
    if query.every_tenant and current().role not in EVERY_TENANT:
        raise PermissionDenied(
            "ROLE_FORBIDDEN",
            f"a caller of role {current().role.value!r} may not list every tenant's sessions; leave tenant out",
            field="tenant",
            role=current().role.value,
        )
    if query.model is not None:
        residency.table.engine(query.model)
    stamp = mark(query)
    after = decode(query.page_token, tenant, stamp) if query.page_token else None
    views: list[SessionView] = []
    looked, more = 0, True
    while more and len(views) < size and looked < LOOKED_AT_MOST:
        records, keys, more = await _chunk(residency, tenant, query.model, after, size)
        for place, key in enumerate(keys):
            looked, after = looked + 1, key
            view = _view(residency, key, records, wanted)
            views += [] if view is None else [view]
            if len(views) == size:
                more = more or place + 1 < len(keys)
                break
            if place % VIEWS_TOGETHER == VIEWS_TOGETHER - 1:
                await asyncio.sleep(0)
    return SessionPage(tuple(views), encode(after, stamp) if more and after is not None else "")


async def _chunk(
    residency: Residency, tenant: str | None, model: str | None, after: SessionKey | None, size: int
) -> tuple[Records, list[SessionKey], bool]:
    """The next `size` keys, those of them that are stored with their records, and whether there are more."""
    keeping, records, evictions = residency.keeping, Records(), -1
    # A session that leaves memory while the store is read may be missed by both.
    while keeping is not None and evictions != residency.evictions:
        evictions = residency.evictions
        records = await _stored(residency, keeping, tenant, model, size, after)
    live = (s.key for s in residency.table if tenant in (None, s.tenant) and model in (None, s.model))
    keys = heapq.nsmallest(size + 1, (key for key in {*live, *records} if after is None or key > after))
    return records, keys[:size], len(keys) > size


async def _stored(
    residency: Residency, keeping: Keeping, tenant: str | None, model: str | None, size: int, after: SessionKey | None
) -> Records:
    journal, records = residency.journal, Records()
    while len(records) <= size:
        with keeping.told("*"):
            found = await keeping.thread.look(keeping.store.page, tenant, model, after, size + 1, residency.wall())
        for stored in found:
            after = stored.key
            if stored.record is None:
                log.error("a session's record does not hold; it is left as it is", session=after, error=stored.damage)
            elif residency.table.serves(after[1]) and not (journal and journal.deleting(after)):
                record = await _adopted(residency, keeping, stored.record)
                records |= {} if record is None else {after: record}
        if len(found) <= size:
            break
    return records


async def _adopted(residency: Residency, keeping: Keeping, record: SessionRecord) -> SessionRecord | None:
    """The record as the session would return from it, or None if it would not."""
    engine = residency.table.engine(record.model)
    if residency.table.at(record.key) is not None or record.bundle == engine.manifest.digest:
        return record
    try:
        with keeping.told(record.session_id):
            return (await keeping.thread.look(residency.adoption.adopt, record, engine, keeping.store.bundle)).record
    except (FailedPrecondition, Dropped) as error:
        log.warning("a stored session does not fit what is served", session=record.session_id, error=str(error))
        return None


def _view(residency: Residency, key: SessionKey, records: Records, wanted: filters.Test | None) -> SessionView | None:
    session = residency.table.at(key)
    if session is not None:
        facts = Facts(session.model, session.cohort.recipe.name, session.state, session.labels)
        moment = residency.moment(session).budget
        return session.view(moment) if wanted is None or wanted(facts) else None
    record = records.get(key)
    if record is None:
        return None
    if wanted is not None and not wanted(Facts(record.model, record.recipe, SessionState(record.state), record.labels)):
        return None
    try:
        view = residency.table.glimpse(record, residency.moment_after(record.account.get("samples", 0)))
        # A scrape may have seen it meanwhile.
        residency.account.census.changed(key)
        return view
    except FailedPrecondition as error:
        log.warning("a stored session does not fit what is served", session=key[2], error=error.message)
        return None
