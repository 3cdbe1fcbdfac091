"""A store in memory: what the contract means, without a file. Daemons that share a `Shelf` share their sessions."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from acclimate.runtime.store.base import (
    REMEMBERED,
    Accept,
    Batch,
    Damaged,
    Key,
    OwnedElsewhere,
    Reply,
    Store,
    Stored,
    Usage,
    Write,
    Written,
)
from acclimate.runtime.store.codec import decode, encode


@dataclass(slots=True)
class Kept:
    """A row: who owns it, and the record's bytes."""

    owner: str
    epoch: int
    expires_at: float | None
    state_bytes: int
    content: bytes

    def passed(self, now: float) -> bool:
        """Whether it has expired."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(slots=True)
class Shelf:
    """Rows by model and id, descriptions of bundles, and the owners that are alive."""

    rows: dict[Key, Kept] = field(default_factory=dict)
    bundles: dict[str, str] = field(default_factory=dict)
    replies: dict[tuple[str, ...], Reply] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    names: Iterator[int] = field(default_factory=count)


class MemoryStore(Store):
    """Implements `Store` on a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._owner = f"memory-{next(shelf.names)}"
        shelf.alive.add(self._owner)

    @property
    def owner(self) -> str:
        """A name on the shelf."""
        return self._owner

    def write(self, batch: Batch) -> Written:
        """All at once."""
        contents = [(write, encode(write.record)) for write in batch.writes]
        with self._rows() as rows:
            self._shelf.bundles |= batch.bundles
            for key, epoch in batch.deleted.items():
                if self._owns(key, epoch):
                    del rows[key]
            for reply in batch.replies:
                name = (reply.tenant, reply.kind, reply.resource, reply.request_id)
                self._shelf.replies.pop(name, None)
                self._shelf.replies[name] = reply
            for old in list(self._shelf.replies)[:-REMEMBERED]:
                del self._shelf.replies[old]
            fenced = [write.record.key for write, content in contents if not self._written(write, content)]
            for key, epoch in batch.released.items():
                if self._owns(key, epoch):
                    rows[key].owner = ""
        return Written(sum(len(content) for _, content in contents), tuple(fenced))

    def claim(self, key: Key, now: float, accept: Accept, *, take_over: bool = False) -> tuple[Any, int] | None:
        """Compare and swap."""
        with self._rows() as rows:
            row = rows.get(key)
            if row is None or row.passed(now):
                return None
            self._refuse_other(row, take_over)
            accepted = accept(decode(row.content))
            row.owner, row.epoch = self._owner, row.epoch + 1
            return accepted, row.epoch

    def holds(self, key: Key) -> bool:
        """A look-up."""
        with self._rows() as rows:
            return key in rows

    def bundle(self, digest: str) -> str | None:
        """A look-up."""
        return self._shelf.bundles.get(digest)

    def remove(self, key: Key, *, take_over: bool = False) -> int | None:
        """Forget the row."""
        with self._rows() as rows:
            row = rows.get(key)
            if row is None:
                return None
            self._refuse_other(row, take_over)
            del rows[key]
            return row.state_bytes

    def page(self, tenant: str | None, model: str | None, after: Key | None, limit: int, now: float) -> list[Stored]:
        """Sorted by key."""
        with self._rows() as rows:
            keys = sorted(key for key, row in rows.items() if not row.passed(now) and key > (after or ("", "", "")))
            wanted = [key for key in keys if tenant in (None, key[0]) and model in (None, key[1])]
            return [self._shown(key, rows[key]) for key in wanted[:limit]]

    def expire(self, now: float, limit: int) -> Mapping[Key, int]:
        """Forget those whose time has come."""
        with self._rows() as rows:
            due = [key for key, row in rows.items() if row.passed(now) and row.owner not in self._shelf.alive][:limit]
            return {key: rows.pop(key).state_bytes for key in due}

    def count(self) -> int:
        """Rows."""
        return len(self._shelf.rows)

    def replies(self) -> Sequence[Reply]:
        """All of them."""
        with self._rows():
            return tuple(self._shelf.replies.values())

    def usage(self) -> Mapping[str, Usage]:
        """Sums over the rows."""
        found: dict[str, Usage] = {}
        with self._rows() as rows:
            for (tenant, _, _), row in rows.items():
                so_far = found.get(tenant, Usage())
                found[tenant] = Usage(so_far.sessions + 1, so_far.state_bytes + row.state_bytes)
        return found

    def size(self) -> int:
        """Bytes of the records."""
        return sum(len(row.content) for row in tuple(self._shelf.rows.values()))

    def close(self) -> None:
        """Let go of everything."""
        with self._rows() as rows:
            for row in rows.values():
                row.owner = "" if row.owner == self._owner else row.owner
        self.die()

    def die(self) -> None:
        """End as a process that is killed does: what it owned it still does, but it is not alive."""
        self._shelf.alive.discard(self._owner)

    @contextmanager
    def _rows(self) -> Iterator[dict[Key, Kept]]:
        with self._shelf.lock:
            yield self._shelf.rows

    def _owns(self, key: Key, epoch: int) -> bool:
        row = self._shelf.rows.get(key)
        return row is not None and (row.owner, row.epoch) == (self._owner, epoch)

    def _written(self, write: Write, content: bytes) -> bool:
        key = write.record.key
        if write.epoch == 0:
            if key in self._shelf.rows:
                return False
            self._shelf.rows[key] = Kept(self._owner, 1, write.expires_at, write.record.state_bytes, content)
        elif self._owns(key, write.epoch):
            self._shelf.rows[key] = Kept(self._owner, write.epoch, write.expires_at, write.record.state_bytes, content)
        else:
            return False
        return True

    def _refuse_other(self, row: Kept, take_over: bool) -> None:
        if row.owner not in ("", self._owner) and not take_over and row.owner in self._shelf.alive:
            raise OwnedElsewhere(row.owner)

    def _shown(self, key: Key, row: Kept) -> Stored:
        record, damage = None, ""
        try:
            record = decode(row.content)
        except Damaged as error:
            damage = str(error)
        return Stored(key, row.owner, row.epoch, len(row.content), record, damage)
