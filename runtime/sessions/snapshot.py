"""One snapshot: a session's record at an earlier moment, kept under an id. It travels in the record of its session."""

from __future__ import annotations

from dataclasses import dataclass, replace

from acclimate.runtime.sessions.states import SessionState
from acclimate.runtime.store.base import HEADER_BYTES, SessionRecord


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a session had learnt; nobody writes to the record."""

    id: str
    record: SessionRecord

    @property
    def nbytes(self) -> int:
        """Its size: the arrays, and an allowance for the rest."""
        return HEADER_BYTES + self.record.state_bytes

    @property
    def state(self) -> SessionState:
        """What answered the session then, `pristine` or `adapted`."""
        return SessionState(self.record.state).answering


def snapshot_of(snapshot_id: str, record: SessionRecord) -> Snapshot:
    """A record as a snapshot; those that it holds itself are left out."""
    for array in record.fields.values():
        array.setflags(write=False)
    return Snapshot(snapshot_id, replace(record, snapshots={}))
