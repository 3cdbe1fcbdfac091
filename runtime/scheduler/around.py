"""What surrounds requests and steps for those who observe them; nothing, where nobody does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from acclimate.runtime.sessions.gathering import Gathered
from acclimate.runtime.sessions.session import Session

P = ParamSpec("P")
First = TypeVar("First")
Second = TypeVar("Second")

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


def each_of(observer: Callable[[First, Second], None]) -> Callable[[Sequence[tuple[First, Second]]], None]:
    """What tells an observer of one thing at a time of all in a batch, in their order."""

    def all_of(batch: Sequence[tuple[First, Second]]) -> None:
        for first, second in batch:
            observer(first, second)

    return all_of
