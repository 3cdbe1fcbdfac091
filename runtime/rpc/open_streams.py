"""The streams that are open and still read, and their end when the daemon drains."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from acclimate.runtime.errors import Unavailable


class OpenStreams:
    """Touched on the event loop's thread only."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Task[None]] = set()
        self._draining = False

    def reader(self, reading: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that reads one, until it has ended or the daemon drains."""
        task = asyncio.create_task(reading)
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)
        return task

    def drain(self) -> None:
        """Read no more of any; `refuse_draining` says so to its client, once what was read is answered."""
        self._draining = True
        for reader in self._readers:
            reader.cancel()

    def refuse_draining(self) -> None:
        """Turn a client away.

        Raises:
            Unavailable: the daemon drains.
        """
        if self._draining:
            raise Unavailable("DRAINING", "the daemon is draining; open the stream on another one")
