"""A real store whose disk a test can make slow, or full, and services that share stores."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acclimate.runtime.store.base import Accept, Batch, Key, Reply, Store, Stored, StoreError, Usage, Written
from acclimate.runtime.store.sqlite import SqliteStore
from tests.polling import PATIENCE_SECONDS


class Shaky(Store):
    """Delegates to `inner`; writes fail while `broken`, and wait at the door while it is shut."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.broken = False
        self.tries = 0
        self.door = threading.Event()
        self.door.set()

    @property
    def owner(self) -> str:
        return self.inner.owner

    def write(self, batch: Batch) -> Written:
        self.tries += 1
        assert self.door.wait(PATIENCE_SECONDS), "the door was never opened"
        if self.broken:
            raise StoreError("no space left on this device, says the test")
        return self.inner.write(batch)

    def claim(self, key: Key, now: float, accept: Accept, *, take_over: bool = False) -> tuple[Any, int] | None:
        return self.inner.claim(key, now, accept, take_over=take_over)

    def holds(self, key: Key) -> bool:
        return self.inner.holds(key)

    def bundle(self, digest: str) -> str | None:
        return self.inner.bundle(digest)

    def remove(self, key: Key, *, take_over: bool = False) -> int | None:
        return self.inner.remove(key, take_over=take_over)

    def page(self, tenant: str | None, model: str | None, after: Key | None, limit: int, now: float) -> list[Stored]:
        return self.inner.page(tenant, model, after, limit, now)

    def expire(self, now: float, limit: int) -> Mapping[Key, int]:
        return self.inner.expire(now, limit)

    def count(self) -> int:
        return self.inner.count()

    def replies(self) -> Sequence[Reply]:
        return self.inner.replies()

    def usage(self) -> Mapping[str, Usage]:
        return self.inner.usage()

    def size(self) -> int:
        return self.inner.size()

    def close(self) -> None:
        self.inner.close()


def killed(store: SqliteStore) -> None:
    """End a store as kill -9 would: its lock and its connection are gone, and it let go of nothing."""
    store._owners.close()
    store._drop()
    if store._reader is not None:
        store._reader.close()
        store._reader = None


def database(folder: Path) -> SqliteStore:
    return SqliteStore(folder / "sessions.db")
