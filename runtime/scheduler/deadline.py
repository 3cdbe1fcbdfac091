"""Steps that a request waits for, and that end in time for its answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from acclimate.runtime.clock import Clock
from acclimate.runtime.scheduler.drive import Pause, Slicing


class OutOfTime(Exception):
    """The step would not end before its request's deadline; `ms` is what it took until it was given up."""

    def __init__(self, ms: float) -> None:
        super().__init__(f"given up after {ms:.3g} ms")
        self.ms = ms


@dataclass(slots=True)
class _Watchful:
    """A pause that gives the step up when a slice as long as the longest so far would end after the deadline."""

    pause: Pause
    deadline: float
    clock: Clock
    started: float | None = field(default=None, init=False)
    latest: float = field(default=0.0, init=False)
    longest: float = field(default=0.0, init=False)

    def __call__(self) -> None:
        now = self.clock.monotonic()
        if self.started is None:
            self.started = now
        else:
            self.longest = max(self.longest, now - self.latest)
        self.latest = now
        if now + self.longest >= self.deadline:
            raise OutOfTime((now - self.started) * 1e3)
        self.pause()


def until(slicing: Slicing, deadline: float | None, clock: Clock) -> Slicing:
    """The slicing of a step that must end before `deadline`, in seconds on the clock; None: whenever it ends.

    Its pause raises `OutOfTime`.
    """
    return slicing if deadline is None else Slicing(slicing.rows, _Watchful(slicing.pause, deadline, clock))
