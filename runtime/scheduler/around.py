"""What surrounds requests and steps for those who observe them; nothing, where nobody does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import ParamSpec

from acclimate.runtime.sessions.gathering import Gathered
from acclimate.runtime.sessions.session import Session

P = ParamSpec("P")

Around = Callable[[Sequence[Session], Sequence[Gathered]], AbstractContextManager[object]]
"""Entered before a step over what sessions have gathered is computed, and left after its commit."""

MARK: ContextVar[object | None] = ContextVar("mark", default=None)
"""What an observer has put on the request that a task serves; its ticket carries it along."""

_NOTHING = nullcontext()


def unobserved(sessions: Sequence[Session], gathered: Sequence[Gathered]) -> AbstractContextManager[object]:
    """Nothing."""
    del sessions, gathered
    return _NOTHING


def told(call: Callable[P, None], observer: Callable[P, None] | None) -> Callable[P, None]:
    """`call`, of which an observer is told before; where nobody observes, `call` itself."""
    if observer is None:
        return call

    def both(*given: P.args, **named: P.kwargs) -> None:
        observer(*given, **named)
        call(*given, **named)

    return both
