"""Time that lessons are charged: what is computed, shared by those that learn together; waiting costs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable


class Meter:
    """A clock of seconds that goes while it is told to, as fast as one of `sharers` lessons is charged.

    Used by one thread at a time.
    """

    def __init__(self, sharers: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._total = 0.0
        self._since: float | None = None
        self.sharers = sharers

    def now(self) -> float:
        """Seconds so far."""
        if self._since is not None:
            now = self._clock()
            self._total += (now - self._since) / max(1, self.sharers)
            self._since = now
        return self._total

    def go(self) -> None:
        """Computation begins."""
        self._since = self._clock()

    def rest(self) -> None:
        """Computation ends, for now."""
        self.now()
        self._since = None
