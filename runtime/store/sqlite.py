"""The embedded store: one SQLite file in WAL mode, a connection that writes, used by one thread, and one that looks.

Writes are durable when `write` returns (`synchronous=FULL`: the log is flushed to the disk). A claim need not
survive a loss of power, since no owner does, and so does not wait for the disk.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from acclimate.runtime.store.base import (
    Accept,
    Batch,
    Key,
    OwnedElsewhere,
    Reply,
    Store,
    Stored,
    StoreError,
    Usage,
    Write,
    Written,
)
from acclimate.runtime.store.codec import encode
from acclimate.runtime.store.holding import hold
from acclimate.runtime.store.owners import Owners, folder_of
from acclimate.runtime.store.reading import checked, read, stored
from acclimate.runtime.store.replies import keep, recall
from acclimate.runtime.store.schema import WrongFormat, prepare

Synchronous = Literal["full", "normal"]
BUSY_SECONDS = 10.0
# A log that grew under a burst is cut back to this many bytes at the next checkpoint.
LOG_BYTES = 16 * 2**20

HELD = "SELECT 1 FROM sessions WHERE (tenant, model, id) = (?, ?, ?)"
OWNER = "SELECT owner, state_bytes FROM sessions WHERE (tenant, model, id) = (?, ?, ?)"
WALK = (
    "SELECT tenant, model, id FROM sessions WHERE (tenant, model, id) > (?, ?, ?) AND (? IS NULL OR tenant = ?) "
    "AND (? IS NULL OR model = ?) AND (expires_at IS NULL OR expires_at > ?) ORDER BY tenant, model, id LIMIT ?"
)
EXPIRED = "SELECT tenant, model, id, owner, state_bytes FROM sessions WHERE expires_at <= ? LIMIT ?"
INSERT = (
    "INSERT INTO sessions (tenant, model, id, owner, epoch, expires_at, state_bytes, record) "
    "VALUES (?, ?, ?, ?, 1, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
# The swap of every write that knows what it owns.
UPDATE = (
    "UPDATE sessions SET expires_at = ?, state_bytes = ?, record = ? "
    "WHERE (tenant, model, id) = (?, ?, ?) AND owner = ? AND epoch = ?"
)
DELETE_OWNED = "DELETE FROM sessions WHERE (tenant, model, id) = (?, ?, ?) AND owner = ? AND epoch = ?"
RELEASE = "UPDATE sessions SET owner = '' WHERE (tenant, model, id) = (?, ?, ?) AND owner = ? AND epoch = ?"
CLAIM = "UPDATE sessions SET owner = ?, epoch = ? WHERE (tenant, model, id) = (?, ?, ?)"
DELETE = "DELETE FROM sessions WHERE (tenant, model, id) = (?, ?, ?)"


class SqliteStore(Store):
    """Implements `Store` on a file, which is made if it is not there. Lock files lie beside it in `<path>.owners/`.

    Args:
        path: of the database.
        synchronous: `full`: a commit outlives a loss of power; `normal`: it outlives the process, but the latest may
            be lost with the power.
        max_pages: refuse to grow beyond, or None.

    Raises:
        StoreError: the file cannot be opened, or is not a store that this build reads; the message names it.
    """

    def __init__(self, path: Path, synchronous: Synchronous = "full", max_pages: int | None = None) -> None:
        self.path = path
        self._synchronous = synchronous
        self._max_pages = max_pages
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._looks = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite gives its log the permissions of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            with self._reported():
                prepare(self._open())
            self._owners = Owners(folder_of(path))
        except (OSError, StoreError, WrongFormat) as error:
            self._drop()
            raise StoreError(f"{path}: {error}") from error

    @property
    def owner(self) -> str:
        """The name of this daemon's lock file."""
        return self._owners.name

    def write(self, batch: Batch) -> Written:
        """One transaction."""
        # Snapshots have rows of their own.
        contents = [(write, encode(replace(write.record, snapshots={}))) for write in batch.writes]
        held = 0
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO bundles VALUES (?, ?)", batch.bundles.items())
            for key, epoch in batch.deleted.items():
                connection.execute(DELETE_OWNED, (*key, self.owner, epoch))
            fenced = []
            for write, content in contents:
                if self._written(connection, write, content):
                    held += hold(connection, write.record)
                else:
                    fenced.append(write.record.key)
            keep(connection, batch.replies)
            for key, epoch in batch.released.items():
                connection.execute(RELEASE, (*key, self.owner, epoch))
        return Written(held + sum(len(content) for _, content in contents), tuple(fenced))

    def claim(self, key: Key, now: float, accept: Accept, *, take_over: bool = False) -> tuple[Any, int] | None:
        """Compare and swap on owner and epoch, within one transaction."""
        with self._transaction(durable=False) as connection:
            row = read(connection, key)
            if row is None or row.passed(now):
                return None
            self._refuse_other(row.owner, take_over)
            accepted = accept(checked(connection, key, row))
            connection.execute(CLAIM, (self.owner, row.epoch + 1, *key))
        return accepted, row.epoch + 1

    def holds(self, key: Key) -> bool:
        """A look at the index."""
        with self._looking() as connection:
            return connection.execute(HELD, key).fetchone() is not None

    def bundle(self, digest: str) -> str | None:
        """A look at the primary key."""
        with self._looking() as connection:
            row = connection.execute("SELECT description FROM bundles WHERE digest = ?", (digest,)).fetchone()
            return None if row is None else str(row[0])

    def remove(self, key: Key, *, take_over: bool = False) -> int | None:
        """One transaction."""
        with self._transaction() as connection:
            row = connection.execute(OWNER, key).fetchone()
            if row is None:
                return None
            self._refuse_other(row[0], take_over)
            connection.execute(DELETE, key)
        return int(row[1])

    def page(self, tenant: str | None, model: str | None, after: Key | None, limit: int, now: float) -> list[Stored]:
        """A walk along the primary key; each record is read by itself, so that a damaged one spoils no other."""
        with self._looking() as connection:
            keys = connection.execute(
                WALK, (*(after or (tenant or "", "", "")), tenant, tenant, model, model, now, limit)
            ).fetchall()
            return [shown for key in keys if (shown := stored(connection, key)) is not None]

    def expire(self, now: float, limit: int) -> Mapping[Key, int]:
        """One transaction."""
        with self._reported():
            if not self._open().execute(EXPIRED, (now, 1)).fetchall():
                return {}
        with self._transaction() as connection:
            rows = connection.execute(EXPIRED, (now, limit)).fetchall()
            gone = {tuple(row[:3]): row[4] for row in rows if not row[3] or not self._owners.alive(row[3])}
            connection.executemany(DELETE, gone)
        return gone

    def count(self) -> int:
        """By the index."""
        with self._looking() as connection:
            return int(connection.execute("SELECT count(*) FROM sessions").fetchone()[0])

    def replies(self) -> Sequence[Reply]:
        """A look at their table."""
        with self._looking() as connection:
            return recall(connection)

    def usage(self) -> Mapping[str, Usage]:
        """By an index that holds all of it."""
        with self._looking() as connection:
            rows = connection.execute("SELECT tenant, count(*), sum(state_bytes) FROM sessions GROUP BY tenant")
            return {tenant: Usage(sessions, size) for tenant, sessions, size in rows}

    def size(self) -> int:
        """Database and log."""
        total = 0
        for name in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            with contextlib.suppress(OSError):
                total += name.stat().st_size
        return total

    def close(self) -> None:
        """Let go of what is owned, fold the log into the database, drop the lock."""
        with contextlib.suppress(StoreError, sqlite3.Error):
            if self._connection is not None:
                with self._transaction() as connection:
                    connection.execute("UPDATE sessions SET owner = '' WHERE owner = ?", (self.owner,))
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._drop()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._owners.close()

    def _written(self, connection: sqlite3.Connection, write: Write, content: bytes) -> bool:
        key, until, size = write.record.key, write.expires_at, write.record.state_bytes
        if write.epoch == 0:
            return connection.execute(INSERT, (*key, self.owner, until, size, content)).rowcount == 1
        return connection.execute(UPDATE, (until, size, content, *key, self.owner, write.epoch)).rowcount == 1

    def _refuse_other(self, owner: str, take_over: bool) -> None:
        if owner and owner != self.owner and not take_over and self._owners.alive(owner):
            raise OwnedElsewhere(owner)

    @contextmanager
    def _transaction(self, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction that is committed at the end, or undone; after a failed one the connection is made anew.

        After an error of the disk it is not known what the connection's cache and log still agree on.
        """
        with self._reported():
            connection = self._open()
            connection.execute(f"PRAGMA synchronous = {self._synchronous if durable else 'normal'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    self._drop()
                raise

    @contextmanager
    def _looking(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for calls that only look: in a write-ahead log they wait for no write."""
        with self._reported():
            with self._looks:
                if self._reader is None:
                    self._reader = self._opened()
            yield self._reader

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", "")
            raise StoreError(f"{self.path}: {error}{f' ({code})' if code else ''}") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._opened()
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        with self._reported():
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = wal").fetchone()
                if mode != "wal":
                    raise StoreError(f"{self.path}: its file system does not allow a write-ahead log")
                connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
                if self._max_pages is not None:
                    connection.execute(f"PRAGMA max_page_count = {self._max_pages}")
            except BaseException:
                connection.close()
                raise
            return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
