"""The life of a session, as a table. What is not in it is an error that names state and event.

`pristine` sessions hold the source's parameters and are answered by the frozen graph, together with everyone
else's; `adapted` ones are answered with their own. A paused session is one or the other, and goes on being answered
so, but learns nothing until it is resumed; only a snapshot that is brought back, or a reset, changes it.
"""

from __future__ import annotations

import sys
from enum import StrEnum

from acclimate.runtime.errors import FailedPrecondition


class SessionState(StrEnum):
    """What serves the session's requests."""

    PRISTINE = "pristine"
    ADAPTED = "adapted"
    PAUSED_PRISTINE = "paused_pristine"
    PAUSED_ADAPTED = "paused_adapted"
    CLOSED = "closed"

    @property
    def paused(self) -> bool:
        """Whether the session does not learn."""
        return self in (SessionState.PAUSED_PRISTINE, SessionState.PAUSED_ADAPTED)

    @property
    def adapted(self) -> bool:
        """Whether the session has parameters of its own."""
        return self in (SessionState.ADAPTED, SessionState.PAUSED_ADAPTED)

    @property
    def answering(self) -> SessionState:
        """What answers it, paused or not."""
        if not self.paused:
            return self
        return SessionState.ADAPTED if self.adapted else SessionState.PRISTINE


class SessionEvent(StrEnum):
    """What can happen to it."""

    COMMIT = "commit"
    RESTORE = "restore"
    PAUSE = "pause"
    RESUME = "resume"
    CLOSE = "close"


def _table() -> dict[tuple[SessionState, SessionEvent], SessionState]:
    pairs = (
        (SessionState.PRISTINE, SessionState.ADAPTED),
        (SessionState.PAUSED_PRISTINE, SessionState.PAUSED_ADAPTED),
    )
    (pristine, adapted), (paused_pristine, paused_adapted) = pairs
    table = {}
    for source, own in pairs:
        for state in (source, own):
            table[state, SessionEvent.COMMIT] = own
            table[state, SessionEvent.RESTORE] = source
            table[state, SessionEvent.PAUSE] = paused_adapted if state.adapted else paused_pristine
            table[state, SessionEvent.RESUME] = adapted if state.adapted else pristine
            table[state, SessionEvent.CLOSE] = SessionState.CLOSED
    return table


TRANSITIONS = _table()


def after(state: SessionState, event: SessionEvent) -> SessionState:
    """The state that follows.

    Raises:
        FailedPrecondition: the table has no such transition.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise FailedPrecondition(
            "SESSION_STATE_INVALID",
            f"a session that is {state.value} cannot {event.value}; open a new session",
            state=state.value,
            event=event.value,
        ) from None


def markdown() -> str:
    """The page `docs/session-states.md`: the table, and the diagram that Mermaid draws of it."""
    rows = sorted((state, event, follows) for (state, event), follows in TRANSITIONS.items())
    arrows = [f"    {state} --> {follows}: {event}" for state, event, follows in rows]
    lines = [f"| {state} | {event} | {follows} |" for state, event, follows in rows]
    return "\n".join(
        [
            "# The states of a session",
            "",
            "Generated from `runtime/sessions/states.py`:",
            "`python -m acclimate.runtime.sessions.states > docs/session-states.md`.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            f"    [*] --> {SessionState.PRISTINE}",
            *arrows,
            f"    {SessionState.CLOSED} --> [*]",
            "```",
            "",
            "| state | event | next state |",
            "|---|---|---|",
            *lines,
            "",
            "Any other event is `FAILED_PRECONDITION` with reason `SESSION_STATE_INVALID`.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(markdown())
