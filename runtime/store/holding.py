"""A session's snapshots as rows of their own: they never change, so a commit of the session need not write them."""

from __future__ import annotations

import sqlite3

from acclimate.runtime.store.base import STAMP, Key, SessionRecord
from acclimate.runtime.store.codec import encode

HELD = "SELECT id, stamp FROM snapshots WHERE (tenant, model, session) = (?, ?, ?)"
PUT = "INSERT OR REPLACE INTO snapshots (tenant, model, session, id, stamp, record) VALUES (?, ?, ?, ?, ?, ?)"
DROP = "DELETE FROM snapshots WHERE (tenant, model, session, id) = (?, ?, ?, ?)"


def stamp_of(snapshot: SessionRecord) -> str:
    """What tells a snapshot from an earlier one of the same id."""
    return str(snapshot.attributes.get(STAMP) or f"{snapshot.version}/{snapshot.recorded_at!r}")


def hold(connection: sqlite3.Connection, record: SessionRecord) -> int:
    """Let the snapshots stored be those of the record, and write what is new; bytes written."""
    there = dict(connection.execute(HELD, record.key).fetchall())
    for name in there.keys() - record.snapshots.keys():
        connection.execute(DROP, (*record.key, name))
    written = 0
    for name, snapshot in record.snapshots.items():
        if there.get(name) != (stamp := stamp_of(snapshot)):
            written += put(connection, record.key, name, stamp, snapshot)
    return written


def put(connection: sqlite3.Connection, key: Key, name: str, stamp: str, snapshot: SessionRecord) -> int:
    """Write one snapshot; its bytes."""
    content = encode(snapshot)
    connection.execute(PUT, (*key, name, stamp, content))
    return len(content)
