"""Sessions of language models that Triton's sequences open, set back and close."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from acclimate.runtime.account import Account
from acclimate.runtime.errors import FailedPrecondition
from acclimate.runtime.inference import Sequence
from acclimate.runtime.sessions.residency import Residency
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.types import CreateSession, EventKind


class Sequences:
    """Touched on the event loop's thread only."""

    def __init__(self, residency: Residency, account: Account) -> None:
        self._residency, self._account = residency, account

    @asynccontextmanager
    async def during(self, model: str, sequence: Sequence) -> AsyncIterator[None]:
        """Begin a sequence that starts with a request, and close one that ends with it, as arrays' requests do.

        Raises:
            FailedPrecondition: the session runs another recipe. What `Residency.room` and `SessionTable.open` raise.
        """
        session = await self._begun(model, sequence)
        try:
            yield
        except BaseException:
            # A sequence whose first request came to nothing leaves no session behind.
            if session is not None and session.account.requests == 0:
                self._close(session)
            raise
        if sequence.end and sequence.session_id is not None:
            self._close(await self._residency.get(model, sequence.session_id))

    async def _begun(self, model: str, sequence: Sequence) -> Session | None:
        if sequence.session_id is None or not sequence.start:
            return None
        session = await self._residency.find(model, sequence.session_id)
        if session is None:
            wanted = CreateSession(model, sequence.session_id, sequence.recipe)
            async with self._residency.room(new=True):
                session = self._residency.table.open(wanted, from_sequence=True)
            self._account.happened(session, EventKind.CREATED, 0)
            return session
        if sequence.recipe not in (None, session.cohort.recipe.name):
            raise FailedPrecondition(
                "RECIPE_MISMATCH",
                f"session {session.id!r} runs {session.cohort.recipe.name!r}, not {sequence.recipe!r}; end it first",
                session=session.id,
            )
        before = session.version
        session.restore()
        self._account.happened(session, EventKind.RESET, before)
        return session

    def _close(self, session: Session) -> None:
        if session.from_sequence and session.open:
            self._residency.table.close(session)
            self._account.happened(session, EventKind.DELETED, session.version)
