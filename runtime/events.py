"""Events to whoever watches: each watcher has a bounded queue and loses its oldest event before it blocks anyone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from weakref import WeakSet

from acclimate.runtime.types import Event

QUEUE_LENGTH = 1024


class Watcher(AsyncIterator[Event]):
    """The events of one watch, oldest first; ends when it or the hub is closed.

    The hub knows it weakly: a watch that is dropped, even before its first event, is over.
    """

    def __init__(self, model: str | None, session_id: str | None) -> None:
        self._model = model
        self._session_id = session_id
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE_LENGTH)
        self._ended = False

    async def __anext__(self) -> Event:
        event = None if self._ended else await self._queue.get()
        if event is None:
            self._ended = True
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """End the watch."""
        self._ended = True

    @property
    def ended(self) -> bool:
        """Whether nobody will ask for its events any more."""
        return self._ended

    def wants(self, event: Event) -> bool:
        """Whether the watch is for this event's model and session."""
        return self._model in (None, event.model) and self._session_id in (None, event.session_id)

    def put(self, event: Event | None) -> None:
        """Queue an event, or None to end; the oldest makes room."""
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(event)


class EventHub:
    """Publishes to every watcher; used on the event loop's thread only."""

    def __init__(self) -> None:
        self._watchers: WeakSet[Watcher] = WeakSet()
        self._closed = False
        self._change = asyncio.Event()

    def __len__(self) -> int:
        return sum(not watcher.ended for watcher in self._watchers)

    @property
    def closed(self) -> bool:
        """Whether nothing will be published any more."""
        return self._closed

    async def changed(self) -> None:
        """Return at the next event, whosever it is, or when the hub closes."""
        await self._change.wait()

    def publish(self, event: Event) -> None:
        """Hand an event to those who asked for its model and session."""
        self._wake()
        for watcher in self._watchers:
            if watcher.wants(event):
                watcher.put(event)

    def watch(self, model: str | None, session_id: str | None) -> AsyncIterator[Event]:
        """Events from this call on, until the hub closes."""
        watcher = Watcher(model, session_id)
        self._watchers.add(watcher)
        if self._closed:
            watcher.put(None)
        return watcher

    def close(self) -> None:
        """End every watch, after the events already queued."""
        self._closed = True
        self._wake()
        for watcher in self._watchers:
            watcher.put(None)

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()
