"""What sessions that left memory have to find again and no store keeps: samples, answers, examples of lessons."""

from __future__ import annotations

from collections import OrderedDict

from acclimate.adapters.learning.units import Example
from acclimate.runtime.sessions.gathering import AnswerLog, SampleBuffer
from acclimate.runtime.sessions.session import Session, SessionKey

Held = tuple[str, SampleBuffer, AnswerLog, tuple[Example, ...], int]
"""The session's recipe, what it held, and the bytes of that."""


class Parking:
    """Holds all of it for as many sessions as fit into `limit` bytes; those that left first make room."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[SessionKey, Held] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def park(self, session: Session) -> None:
        """Take over what a session, about to be closed, holds; it is left with nothing."""
        buffer, answers = session.buffer, session.answers
        nbytes = buffer.nbytes + answers.nbytes + session.earlier_bytes
        if nbytes == 0 or nbytes > self._limit:
            return
        session.buffer = buffer.emptied()
        self._held[session.key] = session.cohort.recipe.name, buffer, answers, session.earlier, nbytes
        self.nbytes += nbytes
        while self.nbytes > self._limit:
            self.forget(next(iter(self._held)))

    def fetch(self, session: Session) -> None:
        """Give a session that has returned what it held, if it is still here."""
        held = self.forget(session.key)
        if held is not None and held[0] == session.cohort.recipe.name:
            _, session.buffer, session.answers, session.earlier, _ = held

    def forget(self, key: SessionKey) -> Held | None:
        """Let go of what is held for a session, and return it."""
        held = self._held.pop(key, None)
        self.nbytes -= 0 if held is None else held[4]
        return held
