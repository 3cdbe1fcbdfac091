"""One thread that computes for the event loop: a job in, a call on the loop out, and nothing in between.

An executor's future is wrapped, chained and awaited, which costs an answer three turns of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Job = Callable[[], Any]
Done = Callable[[Any, BaseException | None], None]


class Worker:
    """Runs jobs one after the other; the thread starts with the first."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[asyncio.AbstractEventLoop, Job, Done] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name)

    def submit(self, job: Job, done: Done) -> None:
        """Run `job` in the thread, then `done(result, error)` on the running event loop, one of the two being None."""
        if not self._thread.is_alive():
            self._thread.start()
        self._jobs.put((asyncio.get_running_loop(), job, done))

    def stop(self) -> None:
        """End the thread once it has done what it was given; nothing can be submitted afterwards."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (given := self._jobs.get()) is not None:
            loop, job, done = given
            # Nobody waits any more if the loop was closed meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done, *_outcome(job))
            del given, job, done


def _outcome(job: Job) -> tuple[Any, BaseException | None]:
    try:
        return job(), None
    except Exception as error:
        return None, error
