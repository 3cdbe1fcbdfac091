"""The only place that reads the time, so that tests and replays can say what time it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Seconds, twice: `monotonic` for intervals and deadlines, `wall` (Unix) for people."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""

    def wall(self) -> float:
        """Unix seconds."""


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """`time.monotonic`."""
        return time.monotonic()

    def wall(self) -> float:
        """`time.time`."""
        return time.time()


@dataclass(slots=True)
class ManualClock:
    """A clock that stands still until told; ships for tests and replay."""

    now: float = 0.0

    def monotonic(self) -> float:
        """The time it was set to."""
        return self.now

    def wall(self) -> float:
        """The time it was set to."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
