"""Which requests are not worth another thread's while: those that come one at a time and whose answers are short.

Handing a request to the thread that predicts and its answer back wakes two threads, each of which first waits for the
interpreter: as long as a small model takes. docs/decisions/0014-short-answers-on-the-loop.md argues this.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from acclimate.runtime.engines.base import Engine

# How long the event loop may be kept from everything else, seconds: no longer than one turn of it under load takes.
LONGEST_SECONDS = 0.002
# So many calls of an engine have to have been shorter, and none longer since.
CALLS = 32
KEPT = 0.7
# So many requests on end have to have come while no other was under way: under load the first of many is alone as well.
LONE = 8
# While one is answered on the loop's thread nobody can come, so that load would never be seen: after so many of them,
# so many are given to the other thread again.
SPELL, LOOKS = 24, 2


@dataclass(slots=True)
class _Seen:
    """Calls of an engine on end that were short, and the seconds that a row takes in them."""

    calls: int = 0
    per_row: float = 0.0


class Shortness:
    """What engines' calls took; used on the event loop's thread only."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Engine, _Seen] = WeakKeyDictionary()

    def note(self, engine: Engine, rows: int, seconds: float) -> None:
        """A call for so many rows took so long."""
        seen = self._seen.get(engine)
        if seen is None:
            seen = self._seen[engine] = _Seen()
        seen.calls = seen.calls + 1 if seconds <= LONGEST_SECONDS else 0
        seen.per_row = KEPT * seen.per_row + (1 - KEPT) * seconds / rows

    def expected(self, engine: Engine, rows: int) -> bool:
        """Whether a call for so many rows will be short."""
        seen = self._seen.get(engine)
        return seen is not None and seen.calls >= CALLS and seen.per_row * rows <= LONGEST_SECONDS


class Solo:
    """Whether requests come one at a time."""

    def __init__(self) -> None:
        self._lone = 0

    def came(self, *, company: bool) -> None:
        """A request came, while another was under way or not."""
        self._lone = 0 if company else self._lone + 1
        if self._lone == LONE + SPELL:
            self._lone = LONE - LOOKS

    def __bool__(self) -> bool:
        return self._lone >= LONE
