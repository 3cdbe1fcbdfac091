"""The life of a session, as a table. What is not in it is an error that names state and event.

`pristine` sessions hold the source's parameters and are answered by the frozen graph, together with everyone
else's; `adapted` ones are answered with their own.
"""

from __future__ import annotations

import sys
from enum import StrEnum

from acclimate.runtime.errors import FailedPrecondition


class SessionState(StrEnum):
    """What serves the session's requests."""

    PRISTINE = "pristine"
    ADAPTED = "adapted"
    CLOSED = "closed"

    @property
    def adapted(self) -> bool:
        """Whether the session has parameters of its own."""
        return self is SessionState.ADAPTED


class SessionEvent(StrEnum):
    """What can happen to it."""

    COMMIT = "commit"
    RESTORE = "restore"
    CLOSE = "close"


TRANSITIONS: dict[tuple[SessionState, SessionEvent], SessionState] = {
    (SessionState.PRISTINE, SessionEvent.COMMIT): SessionState.ADAPTED,
    (SessionState.PRISTINE, SessionEvent.RESTORE): SessionState.PRISTINE,
    (SessionState.PRISTINE, SessionEvent.CLOSE): SessionState.CLOSED,
    (SessionState.ADAPTED, SessionEvent.COMMIT): SessionState.ADAPTED,
    (SessionState.ADAPTED, SessionEvent.RESTORE): SessionState.PRISTINE,
    (SessionState.ADAPTED, SessionEvent.CLOSE): SessionState.CLOSED,
}


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
