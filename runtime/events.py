"""Events to whoever watches: each watcher has a bounded queue and loses its oldest event before it blocks anyone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from acclimate.runtime.types import Event

QUEUE_LENGTH = 1024


@dataclass(eq=False, slots=True)
class _Watcher:
    model: str | None
    session_id: str | None
    queue: asyncio.Queue[Event | None] = field(default_factory=lambda: asyncio.Queue(QUEUE_LENGTH))

    def wants(self, event: Event) -> bool:
        return self.model in (None, event.model) and self.session_id in (None, event.session_id)

    def put(self, event: Event | None) -> None:
        if self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(event)


class EventHub:
    """Publishes to every watcher; used on the event loop's thread only."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._watchers)

    def publish(self, event: Event) -> None:
        """Hand an event to those who asked for its model and session."""
        for watcher in self._watchers:
            if watcher.wants(event):
                watcher.put(event)

    def watch(self, model: str | None, session_id: str | None) -> AsyncIterator[Event]:
        """Events from this call on, until the hub closes."""
        watcher = _Watcher(model, session_id)
        self._watchers.add(watcher)
        if self._closed:
            watcher.put(None)
        return self._iterate(watcher)

    def close(self) -> None:
        """End every watch, after the events already queued."""
        self._closed = True
        for watcher in self._watchers:
            watcher.put(None)

    async def _iterate(self, watcher: _Watcher) -> AsyncIterator[Event]:
        try:
            while (event := await watcher.queue.get()) is not None:
                yield event
        finally:
            self._watchers.discard(watcher)
