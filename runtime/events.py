"""Events to whoever watches: each watcher has a bounded queue and loses its oldest event before it blocks anyone.

Every event has a token, and the latest are remembered, so that a watch whose connection broke can go on where it was.
Tokens are random: a running number would tell one client how much happens to the others' sessions.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace
from weakref import WeakSet

from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.security.caller import current
from acclimate.runtime.types import Event, EventKind

QUEUE_LENGTH = 1024
REMEMBERED = 1024
TOKEN = re.compile(r"[0-9a-f]{32}")


class Watcher(AsyncIterator[Event]):
    """The events of one watch over the caller's sessions, oldest first; ends when it or the hub is closed.

    The hub knows it weakly: a watch that is dropped, even before its first event, is over. An event before which
    others were lost says so.
    """

    def __init__(self, model: str | None, session_id: str | None, kinds: Collection[EventKind] = ()) -> None:
        self._tenant = current().tenant
        self._model = model
        self._session_id = session_id
        self._kinds = frozenset(kinds or EventKind)
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE_LENGTH)
        self._ended = False
        self.missed = False

    async def __anext__(self) -> Event:
        event = None if self._ended else await self._queue.get()
        if event is None:
            self._ended = True
            raise StopAsyncIteration
        if self.missed:
            event, self.missed = replace(event, missed=True), False
        return event

    async def aclose(self) -> None:
        """End the watch."""
        self._ended = True

    @property
    def ended(self) -> bool:
        """Whether nobody will ask for its events any more."""
        return self._ended

    def wants(self, event: Event) -> bool:
        """Whether the watch is for this event's tenant, model, session and kind."""
        if event.tenant != self._tenant or event.kind not in self._kinds:
            return False
        return self._model in (None, event.model) and self._session_id in (None, event.session_id)

    def put(self, event: Event | None) -> None:
        """Queue an event, or None to end; the oldest makes room."""
        if self._queue.full():
            self._queue.get_nowait()
            self.missed = True
        self._queue.put_nowait(event)


class EventHub:
    """Publishes to every watcher; used on the event loop's thread only."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Event], None]] = []
        self._watchers: WeakSet[Watcher] = WeakSet()
        self._closed = False
        self._latest: deque[Event] = deque(maxlen=REMEMBERED)
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
        event = replace(event, token=uuid.uuid4().hex)
        self._latest.append(event)
        self._wake()
        for listener in self.listeners:
            listener(event)
        for watcher in self._watchers:
            if watcher.wants(event):
                watcher.put(event)

    def watch(
        self, model: str | None, session_id: str | None, kinds: Collection[EventKind] = (), after: str = ""
    ) -> AsyncIterator[Event]:
        """Events from this call on, or from those after the token `after`, until the hub closes.

        Where `after` is no longer remembered, or another run of the daemon gave it out, the first event says that some
        were missed.

        Raises:
            InvalidArgument: `after` is no token of a daemon.
        """
        watcher = Watcher(model, session_id, kinds)
        if after:
            self._replay(watcher, after)
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

    def _replay(self, watcher: Watcher, after: str) -> None:
        if not TOKEN.fullmatch(after):
            raise InvalidArgument(
                "RESUME_TOKEN_INVALID",
                "resume_token was not given out by a daemon; send one that came with an event, or none",
                field="resume_token",
            )
        latest = list(self._latest)
        place = next((place for place, event in enumerate(latest) if event.token == after), None)
        watcher.missed = place is None
        for event in latest[len(latest) if place is None else place + 1 :]:
            if watcher.wants(event):
                watcher.put(event)

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()
