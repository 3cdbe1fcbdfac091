"""Snapshots: immutable copies of what a session had learnt, kept with the session under ids of their own.

Bringing one back and forking copy the row of a session's record (`recording.py`), all of it but the budget: the
parameters, the optimiser's state, the statistics, what filters and detectors remember. Samples that waited are not part
of it, and neither are counters.
"""

from __future__ import annotations

import uuid
from dataclasses import replace

from acclimate.adapters import budget
from acclimate.runtime.engines.base import Folded
from acclimate.runtime.errors import AlreadyExists, NotFound, ResourceExhausted
from acclimate.runtime.sessions.recording import Moment, fill_row, record_of
from acclimate.runtime.sessions.session import STEADY, Session
from acclimate.runtime.sessions.snapshot import Snapshot, snapshot_of
from acclimate.runtime.sessions.states import SessionEvent, SessionState, after
from acclimate.runtime.store.base import STAMP, SessionRecord


def take(session: Session, snapshot_id: str, now: Moment, limit: int) -> Snapshot:
    """Keep what the session has learnt so far under an id.

    Raises:
        AlreadyExists: the id is taken. ResourceExhausted: the session holds `limit` snapshots.
    """
    if snapshot_id in session.snapshots:
        raise AlreadyExists(
            "SNAPSHOT_EXISTS",
            f"session {session.id!r} has a snapshot {snapshot_id!r}; delete it first, or choose another id",
            model=session.model,
            session=session.id,
            snapshot=snapshot_id,
        )
    if len(session.snapshots) >= limit:
        raise ResourceExhausted(
            "SNAPSHOTS_FULL",
            f"session {session.id!r} has {len(session.snapshots)} snapshots, as many as sessions.max_snapshots allows; "
            "delete one",
            model=session.model,
            session=session.id,
            limit=limit,
        )
    record = replace(record_of(session, now), attributes={STAMP: uuid.uuid4().hex})
    session.snapshots[snapshot_id] = snapshot_of(snapshot_id, record)
    return session.snapshots[snapshot_id]


def find(session: Session, snapshot_id: str) -> Snapshot:
    """One of the session's snapshots, or NotFound."""
    try:
        return session.snapshots[snapshot_id]
    except KeyError:
        raise NotFound(
            "SNAPSHOT_NOT_FOUND",
            f"session {session.id!r} has no snapshot {snapshot_id[:140]!r}; it has {sorted(session.snapshots)[:20]}",
            model=session.model,
            session=session.id,
            snapshot=snapshot_id[:140],
        ) from None


def put_back(session: Session, record: SessionRecord, folded: Folded | None) -> None:
    """Let the session be what the record says it had learnt, at a new version.

    What waits to be learnt from is dropped, and so are examples of lessons: nobody knows which it had learnt by then.

    Raises:
        FailedPrecondition: the record is of another layout. The session is as it was then.
    """
    _copy(session, record, folded)
    session.buffer.clear()
    session.earlier = ()
    session.version += 1
    session.epoch += 1


def branch(session: Session, record: SessionRecord, folded: Folded | None) -> None:
    """Let a new session begin as what the record says, its version included; raises as `put_back` does."""
    _copy(session, record, folded)
    session.version = record.version


def _copy(session: Session, record: SessionRecord, folded: Folded | None) -> None:
    fill_row(session.cohort.bank, session.row, record, keep=budget.PREFIX)
    session.state = after(session.state, SessionEvent.RESTORE)
    if SessionState(record.state).adapted:
        session.state = after(session.state, SessionEvent.COMMIT)
    session.folded, session.behind = folded, record.behind
    session.distance = record.distance
    session.drift = record.drift if len(record.drift) == len(STEADY) else STEADY
