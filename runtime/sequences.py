"""Sessions are opened, set back and closed: by calls, and by the requests of Triton's sequences."""

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

    async def open(self, wanted: CreateSession, *, from_sequence: bool = False) -> Session:
        """A new session, once there is room for it; what `Residency.room` and `SessionTable.open` raise."""
        async with self._residency.room(new=True):
            session = self._residency.table.open(wanted, from_sequence=from_sequence)
        self._account.happened(session, EventKind.CREATED, 0)
        return session

    def restore(self, session: Session) -> None:
        """Back to the source."""
        before = session.version
        session.restore()
        self._account.happened(session, EventKind.RESET, before)

    async def begin(self, model: str, session_id: str, recipe: str | None) -> Session:
        """The session of a sequence that starts: opened, or set back where it exists.

        Raises:
            FailedPrecondition: the session runs another recipe. What `open` raises.
        """
        session = await self._residency.find(model, session_id)
        if session is None:
            return await self.open(CreateSession(model, session_id, recipe), from_sequence=True)
        if recipe not in (None, session.cohort.recipe.name):
            raise FailedPrecondition(
                "RECIPE_MISMATCH",
                f"session {session.id!r} runs {session.cohort.recipe.name!r}, not {recipe!r}; end it first",
                session=session.id,
            )
        self.restore(session)
        return session

    def end(self, session: Session) -> None:
        """Close a session that a sequence opened."""
        if session.from_sequence and session.open:
            self._residency.table.close(session)
            self._account.happened(session, EventKind.DELETED, session.version)

    def forget_unused(self, session: Session) -> None:
        """A sequence whose first request came to nothing leaves no session behind."""
        if session.account.requests == 0:
            self.end(session)

    @asynccontextmanager
    async def during(self, model: str, sequence: Sequence) -> AsyncIterator[None]:
        """Begin a sequence that starts with a request, and close one that ends with it, as arrays' requests do.

        Raises:
            FailedPrecondition: as `begin`.
        """
        name = sequence.session_id
        session = await self.begin(model, name, sequence.recipe) if name is not None and sequence.start else None
        try:
            yield
        except BaseException:
            if session is not None:
                self.forget_unused(session)
            raise
        if sequence.end and name is not None:
            self.end(await self._residency.get(model, name))
