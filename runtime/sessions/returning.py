"""Bringing a session back from the store, as what its model is by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acclimate.runtime.engines.base import Folded
from acclimate.runtime.generation.model import Model
from acclimate.runtime.repository.adoption import Adopted, Dropped
from acclimate.runtime.repository.moving import Move
from acclimate.runtime.sessions.journal import Journal
from acclimate.runtime.sessions.keeping import Keeping
from acclimate.runtime.sessions.recording import fold_of
from acclimate.runtime.sessions.session import Session, SessionKey
from acclimate.runtime.store.base import SessionRecord
from acclimate.runtime.types import EventKind

if TYPE_CHECKING:
    from acclimate.runtime.sessions.residency import Residency

Fitted = tuple[SessionRecord, Model, Adopted, Folded | None]


async def bring_back(residency: Residency, key: SessionKey, keeping: Keeping, journal: Journal) -> bool:
    """Put a stored session into memory; False if there is none.

    Raises:
        DataLoss, Aborted, FailedPrecondition, ResourceExhausted, Unavailable: see `Residency.get`. It stays stored.
    """

    def fit(record: SessionRecord) -> Fitted:
        engine = residency.table.engine(record.model)
        adopted = residency.adoption.adopt(record, engine, keeping.store.bundle)
        return record, engine, adopted, fold_of(adopted.record, engine)

    try:
        claimed = await keeping.claim(key, residency.wall(), fit)
    except Dropped:
        await _drop(residency, key, keeping)
        return False
    if claimed is None:
        return False
    (record, engine, adopted, folded), epoch = claimed
    try:
        session = None
        while session is None:
            async with residency.room():
                if residency.table.engine(record.model) is engine:
                    now = residency.moment_after(record.account.get("samples", 0))
                    session = residency.table.revive(adopted.record, folded, now)
                    session.charged = record.state_bytes
            if session is None:
                # The model was replaced while there was no room.
                with keeping.told(key[2]):
                    record, engine, adopted, folded = await keeping.thread.look(fit, record)
    except BaseException as error:
        journal.let_go(key, epoch)
        if not isinstance(error, Dropped):
            raise
        await _drop(residency, key, keeping)
        return False
    journal.adopt(session, epoch)
    _arrived(residency, session, adopted.move, record.version)
    return True


def _arrived(residency: Residency, session: Session, move: Move | None, before: int) -> None:
    if move is Move.RESET:
        # Samples and answers of the old model mean nothing in the new one.
        residency.parking.forget(session.key)
    residency.table.resized(session)
    residency.parking.fetch(session)
    residency.used(session)
    residency.returns += 1
    residency.account.happened(session, EventKind.RETURNED, session.version)
    if move is not None:
        kind = EventKind.MOVED if move is Move.CARRIED else EventKind.RESET
        residency.account.moved(session, move, kind, before)


async def _drop(residency: Residency, key: SessionKey, keeping: Keeping) -> None:
    """Delete a stored session that its model's replacement was to drop."""
    if (size := await keeping.remove(key)) is not None:
        residency.account.tallies[key[1]].moves[Move.DROPPED] += 1
        residency.table.deleted[key[1]] += 1
        residency.removed(key, size, EventKind.DELETED)
