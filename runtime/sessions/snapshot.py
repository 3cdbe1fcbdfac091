"""One snapshot: the bytes of a session's record, and what they are about. It travels in the record of its session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from acclimate.runtime.sessions.states import SessionState
from acclimate.runtime.store.base import Damaged, SessionRecord
from acclimate.runtime.store.codec import decode, encode

log = structlog.stdlib.get_logger("acclimate.sessions")

PREFIX = "snapshot."
"""Fields of a record that hold the bytes of the session's snapshots, and are no fields of its row."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a session had learnt.

    Attributes:
        content: the record as `store/codec.py` writes it.
        created_at: Unix seconds.
        version: of the session's parameters then.
        state: what answered the session, `pristine` or `adapted`.
        distance: theta's, relative, from the source's.
    """

    id: str
    content: bytes
    created_at: float
    version: int
    state: SessionState
    distance: float

    @property
    def nbytes(self) -> int:
        """Its size."""
        return len(self.content)

    @property
    def record(self) -> SessionRecord:
        """The record, read anew."""
        return decode(self.content)


def snapshot_of(snapshot_id: str, record: SessionRecord) -> Snapshot:
    """A record as a snapshot; other snapshots that it carries are left out."""
    own = {name: array for name, array in record.fields.items() if not name.startswith(PREFIX)}
    return _described(snapshot_id, encode(replace(record, fields=own)), record)


def carried(snapshots: Mapping[str, Snapshot]) -> dict[str, NDArray[Any]]:
    """Snapshots as fields of their session's record."""
    return {PREFIX + name: np.frombuffer(held.content, np.uint8) for name, held in snapshots.items()}


def brought_back(record: SessionRecord) -> dict[str, Snapshot]:
    """The snapshots that a record carries. One that does not hold is left out, and the log says so."""
    found = {}
    for name in sorted(record.fields):
        if not name.startswith(PREFIX):
            continue
        snapshot_id, content = name.removeprefix(PREFIX), np.asarray(record.fields[name], np.uint8).tobytes()
        try:
            found[snapshot_id] = _described(snapshot_id, content, decode(content))
        except Damaged as error:
            log.error("a snapshot does not hold", session=record.session_id, snapshot=snapshot_id, error=str(error))
    return found


def _described(snapshot_id: str, content: bytes, record: SessionRecord) -> Snapshot:
    return Snapshot(
        id=snapshot_id,
        content=content,
        created_at=record.recorded_at,
        version=record.version,
        state=SessionState(record.state).answering,
        distance=record.distance,
    )
