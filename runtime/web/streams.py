"""Server-sent events: what happens, gathered for a moment, and a message each time the charts have a new point."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from acclimate.runtime.errors import AcclimateError
from acclimate.runtime.types import Event
from acclimate.runtime.web import documents
from acclimate.runtime.web.bridge import Bridge

# Events that come within this time are one message.
GATHER_SECONDS = 0.2
MOST_EVENTS = 200
# How soon a stream notices that the port closes.
NOTICE_SECONDS = 0.5
# A line that means nothing, so that proxies leave a quiet stream open.
QUIET_SECONDS = 15.0


class Feed:
    """A watch, read in batches; lives on the service's loop."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events
        self._upcoming: asyncio.Future[Event | None] | None = None
        self.ended = False

    async def batch(self, patience: float) -> list[Event]:
        """What has happened, after a moment's gathering; nothing after `patience` seconds, or when it has ended."""
        gathered: list[Event] = []
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while not self.ended and len(gathered) < MOST_EVENTS:
            if self._upcoming is None:
                self._upcoming = asyncio.ensure_future(anext(self._events, None))
            await asyncio.wait((self._upcoming,), timeout=max(0.0, until - loop.time()))
            if not self._upcoming.done():
                break
            event = self._upcoming.result()
            self._upcoming = None
            if event is None:
                self.ended = True
                break
            if not gathered:
                until = loop.time() + GATHER_SECONDS
            gathered.append(event)
        return gathered

    def close(self) -> None:
        """Give the watch up."""
        self.ended = True
        if self._upcoming is not None:
            self._upcoming.cancel()


class Ticks:
    """Wakes whoever waits for the next point of the charts; lives on the port's own loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tick(self) -> None:
        """There is a new point."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self) -> None:
        """Return when there is."""
        await self._next.wait()


async def stream(
    bridge: Bridge,
    feed: Feed,
    ticks: Ticks,
    ending: threading.Event,
    sample: Callable[[], Awaitable[Any]],
    stands: Callable[[], Awaitable[None]],
) -> AsyncIterator[str]:
    """Messages until the watch or the port ends, the client leaves, or its credential does not hold any more.

    Args:
        bridge: to the service's loop.
        feed: what happens, on the service's loop.
        ticks: when there is a new point.
        ending: set when the port closes.
        sample: the document for a new point.
        stands: raises once the credential does not hold.
    """
    loop = asyncio.get_running_loop()
    batch = loop.create_task(bridge.over(lambda: feed.batch(QUIET_SECONDS)))
    tick = loop.create_task(ticks.wait())
    try:
        yield _message("sample", await sample())
        while not ending.is_set():
            await asyncio.wait((batch, tick), timeout=NOTICE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if tick.done():
                await stands()
                tick = loop.create_task(ticks.wait())
                yield _message("sample", await sample())
            if batch.done():
                await stands()
                yield _events(batch.result())
                if feed.ended:
                    return
                batch = loop.create_task(bridge.over(lambda: feed.batch(QUIET_SECONDS)))
    except AcclimateError as error:
        yield _message("refused", {"reason": error.reason, "message": error.message})
    finally:
        batch.cancel()
        tick.cancel()
        with suppress(RuntimeError):
            bridge.loop.call_soon_threadsafe(feed.close)


def _events(batch: list[Event]) -> str:
    if not batch:
        return ": quiet\n\n"
    missed = any(event.missed for event in batch)
    return _message("events", {"events": [documents.event(event) for event in batch], "missed": missed})


def _message(name: str, document: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(documents.plain(document), separators=(',', ':'))}\n\n"
