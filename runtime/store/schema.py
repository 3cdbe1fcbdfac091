"""The tables of the SQLite store, their version, and how older ones become today's.

`application_id` says that a file is ours, `user_version` which format it has; docs/persistence.md has the history.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace

from acclimate.runtime.store.base import Damaged
from acclimate.runtime.store.codec import decode, encode
from acclimate.runtime.store.holding import put, stamp_of

APPLICATION = 0x41434C4D  # "ACLM"
VERSION = 3

SCHEMA_2 = (
    """CREATE TABLE sessions (
        tenant TEXT NOT NULL DEFAULT '',
        model TEXT NOT NULL,
        id TEXT NOT NULL,
        owner TEXT NOT NULL DEFAULT '',
        epoch INTEGER NOT NULL DEFAULT 1,
        expires_at REAL,
        record BLOB NOT NULL,
        PRIMARY KEY (tenant, model, id)
    )""",
    "CREATE INDEX sessions_expire ON sessions (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE TABLE bundles (digest TEXT PRIMARY KEY, description TEXT NOT NULL)",
)
CHANGES_3 = (
    "ALTER TABLE sessions ADD COLUMN state_bytes INTEGER NOT NULL DEFAULT 0",
    # What tenants have is counted from the index alone.
    "CREATE INDEX sessions_usage ON sessions (tenant, state_bytes)",
    """CREATE TABLE snapshots (
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        session TEXT NOT NULL,
        id TEXT NOT NULL,
        stamp TEXT NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (tenant, model, session, id)
    )""",
    """CREATE TRIGGER sessions_gone AFTER DELETE ON sessions BEGIN
        DELETE FROM snapshots WHERE (tenant, model, session) = (OLD.tenant, OLD.model, OLD.id);
    END""",
    """CREATE TABLE replies (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        tenant TEXT NOT NULL,
        kind TEXT NOT NULL,
        resource TEXT NOT NULL,
        request_id TEXT NOT NULL,
        request BLOB NOT NULL,
        reply BLOB NOT NULL,
        model TEXT NOT NULL,
        session TEXT NOT NULL,
        UNIQUE (tenant, kind, resource, request_id)
    )""",
)
CONTENT = "SELECT record FROM sessions WHERE (tenant, model, id) = (?, ?, ?)"


class WrongFormat(Exception):
    """The file is no store of ours, or one of a version that this build does not read."""


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring older ones up to date, in one transaction.

    Raises:
        WrongFormat: see there. sqlite3.Error: the file cannot be read or written.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = checked_version(connection)
        if version != VERSION:
            if version == 0:
                _run(connection, SCHEMA_2 + CHANGES_3)
            for step in range(version or VERSION, VERSION):
                MIGRATIONS[step](connection)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def checked_version(connection: sqlite3.Connection) -> int:
    """The version of the tables; 0 where there are none yet.

    Raises:
        WrongFormat: see there.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables == 0:
        return 0
    if application != APPLICATION:
        raise WrongFormat("it is a database of something else; choose another path")
    if not 1 <= version <= VERSION:
        raise WrongFormat(f"its format is {version}; this build reads up to {VERSION}; use a newer one")
    return int(version)


def _from_1(connection: sqlite3.Connection) -> None:
    """Format 1 had no tenants, no owners, no expiry and no descriptions of bundles."""
    rows = connection.execute("SELECT model, id, record FROM sessions").fetchall()
    connection.execute("ALTER TABLE sessions RENAME TO sessions_1")
    _run(connection, SCHEMA_2)
    for model, session_id, record in rows:
        connection.execute(
            "INSERT INTO sessions (model, id, expires_at, record) VALUES (?, ?, ?, ?)",
            (model, session_id, _expiry(record), record),
        )
    connection.execute("DROP TABLE sessions_1")


def _from_2(connection: sqlite3.Connection) -> None:
    """Format 2 had snapshots within their session's record, did not say how large sessions are, and kept no replies."""
    _run(connection, CHANGES_3)
    keys = connection.execute("SELECT tenant, model, id FROM sessions").fetchall()
    for key in keys:
        (content,) = connection.execute(CONTENT, key).fetchone()
        size = len(content) if isinstance(content, bytes) else 0
        try:
            record = decode(content if isinstance(content, bytes) else b"")
        except Damaged:
            # It is kept as it is; whoever asks for the session is told.
            pass
        else:
            size = record.state_bytes
            for name, snapshot in record.snapshots.items():
                put(connection, key, name, stamp_of(snapshot), snapshot)
            content = encode(replace(record, snapshots={})) if record.snapshots else content
        connection.execute(
            "UPDATE sessions SET state_bytes = ?, record = ? WHERE (tenant, model, id) = (?, ?, ?)",
            (size, content, *key),
        )


def _expiry(content: bytes) -> float | None:
    try:
        record = decode(content)
    except Damaged:
        # It is kept as it is; whoever asks for the session is told.
        return None
    return None if record.ttl_seconds is None else record.last_used_at + record.ttl_seconds


MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _from_1, 2: _from_2}


def _run(connection: sqlite3.Connection, statements: tuple[str, ...]) -> None:
    # `executescript` would commit what was begun.
    for statement in statements:
        connection.execute(statement)
