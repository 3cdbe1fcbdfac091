"""A session's rows of the SQLite store, read by themselves, so that a damaged one spoils no other."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from typing import Any

from acclimate.runtime.store.base import Damaged, Key, SessionRecord, Stored
from acclimate.runtime.store.codec import decode

CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
READ = "SELECT owner, epoch, expires_at, record FROM sessions WHERE (tenant, model, id) = (?, ?, ?)"
SNAPSHOTS = "SELECT id, record FROM snapshots WHERE (tenant, model, session) = (?, ?, ?) ORDER BY id"


@dataclass(frozen=True, slots=True)
class Row:
    """A session's row: its owner, under which epoch, when it expires, and its record's bytes."""

    owner: str
    epoch: int
    expires_at: float | None
    content: bytes

    def passed(self, now: float) -> bool:
        """Whether it has expired."""
        return self.expires_at is not None and self.expires_at <= now


def read(connection: sqlite3.Connection, key: Key) -> Row | None:
    """The row under a key, or None.

    Raises:
        Damaged: SQLite cannot read it.
    """
    rows = _fetched(connection, READ, key)
    if rows and not isinstance(rows[0][3], bytes):
        raise Damaged(f"it is {type(rows[0][3]).__name__}, not bytes")
    return Row(*rows[0]) if rows else None


def checked(connection: sqlite3.Connection, key: Key, row: Row) -> SessionRecord:
    """The record of a row, with its snapshots.

    Raises:
        Damaged: one of them does not hold.
    """
    record = decode(row.content)
    if record.key != key:
        raise Damaged(f"it is the record of {record.key}, not of {key}")
    snapshots = dict(record.snapshots)
    for name, content in _fetched(connection, SNAPSHOTS, key):
        try:
            snapshots[name] = decode(content if isinstance(content, bytes) else b"")
        except Damaged as error:
            raise Damaged(f"snapshot {name!r} of it does not hold: {error}") from error
    return replace(record, snapshots=snapshots)


def stored(connection: sqlite3.Connection, key: Key) -> Stored | None:
    """The record under a key, whether it holds or not; None if there is none."""
    owner, epoch, length, record, damage = "", 0, 0, None, ""
    try:
        row = read(connection, key)
        if row is None:
            return None
        owner, epoch, length = row.owner, row.epoch, len(row.content)
        record = checked(connection, key, row)
    except Damaged as error:
        damage = str(error)
    return Stored(key, owner, epoch, length, record, damage)


def _fetched(connection: sqlite3.Connection, query: str, key: Key) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(query, key).fetchall()
    except sqlite3.DatabaseError as error:
        # Python's own complaints about a value of the wrong kind have no code.
        if getattr(error, "sqlite_errorcode", CORRUPT[0]) & 0xFF not in CORRUPT:
            raise
        raise Damaged(f"SQLite cannot read it ({error})") from error
