"""Which waiting requests make the next batch. Pure: it is shown the queue and the time, and says what to do.

Requests run together when the same parameters answer them: everything pristine or stateless shares the frozen
graph, an adapted session has a lane of its own. The oldest request chooses the lane, so nobody starves, and since
all of a session's requests are in one lane at any moment, its answers keep their order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

# A request is overtaken by those of a higher priority until it has waited this many seconds.
PATIENCE_SECONDS = 1.0


class Prioritised(Protocol):
    """A request as `place` sees it: 1 is the highest priority; `arrived` is in seconds; `session` None is nobody's."""

    @property
    def priority(self) -> int:
        """Its priority."""

    @property
    def arrived(self) -> float:
        """When it came."""

    @property
    def session(self) -> object | None:
        """Whose it is."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued request as the decision sees it: lane, rows, and when it came (seconds)."""

    lane: Hashable
    rows: int
    arrived: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Positions in the queue to run now, oldest first; or, if there are none, the time to look again."""

    run: tuple[int, ...]
    look_again_at: float | None = None


def next_batch(queue: Sequence[Waiting], now: float, *, max_rows: int, max_delay: float) -> Plan:
    """Up to `max_rows` rows of the oldest request's lane, once it is full or its oldest waited `max_delay` seconds.

    A single request larger than `max_rows` runs alone.
    """
    if not queue:
        return Plan(())
    first = queue[0]
    chosen, rows, full = [0], first.rows, False
    for position in range(1, len(queue)):
        candidate = queue[position]
        if candidate.lane != first.lane:
            continue
        if rows + candidate.rows > max_rows:
            full = True
            break
        chosen.append(position)
        rows += candidate.rows
    if not full and rows < max_rows and now < first.arrived + max_delay:
        return Plan((), first.arrived + max_delay)
    return Plan(tuple(chosen))


def place(queue: Sequence[Prioritised], arriving: Prioritised) -> int:
    """Where in the queue a request belongs that arrives now: before those at its end whose priority is lower.

    Never before one of its own session, whose answers keep their order, nor before one that has waited for
    `PATIENCE_SECONDS`, so that nobody starves.
    """
    position = len(queue)
    while position:
        ahead = queue[position - 1]
        own = ahead.session is not None and ahead.session is arriving.session
        if ahead.priority <= arriving.priority or own or arriving.arrived - ahead.arrived >= PATIENCE_SECONDS:
            break
        position -= 1
    return position
