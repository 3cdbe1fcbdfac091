"""The life of a session, as a table. What is not in it is an error that names state and event.

`pristine` sessions hold the source's parameters and are answered by the frozen graph, together with everyone
else's; `adapted` ones are answered with their own.
"""

from __future__ import annotations

from enum import StrEnum

from acclimate.runtime.errors import FailedPrecondition


class SessionState(StrEnum):
    """What serves the session's requests."""

    PRISTINE = "pristine"
    ADAPTED = "adapted"
    CLOSED = "closed"


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
