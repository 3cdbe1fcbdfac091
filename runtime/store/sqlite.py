"""The embedded store: one SQLite file in WAL mode, a connection that writes, used by one thread, and one that looks.

Writes are durable when `write` returns (`synchronous=FULL`: the log is flushed to the disk). A claim need not
survive a loss of power, since no owner does, and so does not wait for the disk.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from acclimate.runtime.store.base import (
    Accept,
    Batch,
    Damaged,
    Key,
    OwnedElsewhere,
    SessionRecord,
    Store,
    Stored,
    StoreError,
    Write,
    Written,
)
from acclimate.runtime.store.codec import decode, encode
from acclimate.runtime.store.owners import Owners, folder_of
from acclimate.runtime.store.schema import WrongFormat, prepare

Synchronous = Literal["full", "normal"]
BUSY_SECONDS = 10.0
# A log that grew under a burst is cut back to this many bytes at the next checkpoint.
LOG_BYTES = 16 * 2**20
CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

READ = "SELECT owner, epoch, expires_at, record FROM sessions WHERE (tenant, model, id) = (?, ?, ?)"
HELD = "SELECT 1 FROM sessions WHERE (tenant, model, id) = (?, ?, ?)"
OWNER = "SELECT owner FROM sessions WHERE (tenant, model, id) = (?, ?, ?)"
WALK = (
    "SELECT tenant, model, id FROM sessions WHERE (tenant, model, id) > (?, ?, ?) AND (? IS NULL OR tenant = ?) "
    "AND (? IS NULL OR model = ?) AND (expires_at IS NULL OR expires_at > ?) ORDER BY tenant, model, id LIMIT ?"
)
EXPIRED = "SELECT tenant, model, id, owner FROM sessions WHERE expires_at <= ? LIMIT ?"
INSERT = (
    "INSERT INTO sessions (tenant, model, id, owner, epoch, expires_at, record) VALUES (?, ?, ?, ?, 1, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
# The swap of every write that knows what it owns.
UPDATE = (
    "UPDATE sessions SET expires_at = ?, record = ? WHERE (tenant, model, id) = (?, ?, ?) AND owner = ? AND epoch = ?"
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
        contents = [(write, encode(write.record)) for write in batch.writes]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO bundles VALUES (?, ?)", batch.bundles.items())
            for key, epoch in batch.deleted.items():
                connection.execute(DELETE_OWNED, (*key, self.owner, epoch))
            fenced = [w.record.key for w, content in contents if not self._written(connection, w, content)]
            for key, epoch in batch.released.items():
                connection.execute(RELEASE, (*key, self.owner, epoch))
        return Written(sum(len(content) for _, content in contents), tuple(fenced))

    def claim(self, key: Key, now: float, accept: Accept, *, take_over: bool = False) -> tuple[Any, int] | None:
        """Compare and swap on owner and epoch, within one transaction."""
        with self._transaction(durable=False) as connection:
            row = _read(connection, key)
            if row is None or _passed(row.expires_at, now):
                return None
            self._refuse_other(row.owner, take_over)
            accepted = accept(_checked(key, row.content))
            connection.execute(CLAIM, (self.owner, row.epoch + 1, *key))
        return accepted, row.epoch + 1

    def holds(self, key: Key) -> bool:
        """A look at the index."""
        with self._looking() as connection:
            return connection.execute(HELD, key).fetchone() is not None

    def remove(self, key: Key, *, take_over: bool = False) -> bool:
        """One transaction."""
        with self._transaction() as connection:
            row = connection.execute("SELECT owner FROM sessions WHERE (tenant, model, id) = (?, ?, ?)", key).fetchone()
            if row is None:
                return False
            self._refuse_other(row[0], take_over)
            connection.execute(DELETE, key)
        return True

    def page(self, tenant: str | None, model: str | None, after: Key | None, limit: int, now: float) -> list[Stored]:
        """A walk along the primary key; each record is read by itself, so that a damaged one spoils no other."""
        with self._reported():
            connection = self._open()
            keys = connection.execute(
                WALK, (*(after or (tenant or "", "", "")), tenant, tenant, model, model, now, limit)
            ).fetchall()
            return [shown for key in keys if (shown := stored(connection, key)) is not None]

    def expire(self, now: float, limit: int) -> tuple[Key, ...]:
        """One transaction."""
        with self._reported():
            if not self._open().execute(EXPIRED, (now, 1)).fetchall():
                return ()
        with self._transaction() as connection:
            rows = connection.execute(EXPIRED, (now, limit)).fetchall()
            gone = [tuple(key) for *key, owner in rows if not owner or not self._owners.alive(owner)]
            connection.executemany(DELETE, gone)
        return tuple(gone)

    def count(self) -> int:
        """By the index."""
        with self._looking() as connection:
            return int(connection.execute("SELECT count(*) FROM sessions").fetchone()[0])

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
        key, until = write.record.key, write.expires_at
        if write.epoch == 0:
            return connection.execute(INSERT, (*key, self.owner, until, content)).rowcount == 1
        return connection.execute(UPDATE, (until, content, *key, self.owner, write.epoch)).rowcount == 1

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


@dataclass(frozen=True, slots=True)
class _Row:
    owner: str
    epoch: int
    expires_at: float | None
    content: bytes


def _read(connection: sqlite3.Connection, key: Key) -> _Row | None:
    try:
        row = connection.execute(READ, key).fetchone()
    except sqlite3.DatabaseError as error:
        # Python's own complaints about a value of the wrong kind have no code.
        if getattr(error, "sqlite_errorcode", CORRUPT[0]) & 0xFF not in CORRUPT:
            raise
        raise Damaged(f"SQLite cannot read it ({error})") from error
    if row is not None and not isinstance(row[3], bytes):
        raise Damaged(f"it is {type(row[3]).__name__}, not bytes")
    return None if row is None else _Row(*row)


def _passed(expires_at: float | None, now: float) -> bool:
    return expires_at is not None and expires_at <= now


def _checked(key: Key, content: bytes) -> SessionRecord:
    record = decode(content)
    if record.key != key:
        raise Damaged(f"it is the record of {record.key}, not of {key}")
    return record


def stored(connection: sqlite3.Connection, key: Key) -> Stored | None:
    """The record under a key, whether it holds or not; None if there is none."""
    owner, epoch, length, record, damage = "", 0, 0, None, ""
    try:
        row = _read(connection, key)
        if row is None:
            return None
        owner, epoch, length = row.owner, row.epoch, len(row.content)
        record = _checked(key, row.content)
    except Damaged as error:
        damage = str(error)
    return Stored(key, owner, epoch, length, record, damage)
