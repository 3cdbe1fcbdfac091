"""Where in a queue a request belongs. Pure; `fair.py` says which requests are served together, and whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence
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
