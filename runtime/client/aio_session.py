"""An asyncio handle on one session."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from numpy.typing import ArrayLike

from acclimate.runtime.client import messages, operations
from acclimate.runtime.client.errors import ClientError, SessionLost, lost
from acclimate.runtime.client.operations import Operation
from acclimate.runtime.client.results import Prediction
from acclimate.runtime.client.streaming import DEFAULT_IN_FLIGHT, in_order
from acclimate.runtime.client.watching import DEFAULT_RESUME_SECONDS, AsyncWatch
from acclimate.runtime.types import ExportedSession, Feedback, FeedbackResult, SessionView

if TYPE_CHECKING:
    from acclimate.runtime.client.aio import AsyncClient

T = TypeVar("T")


class AsyncSession:
    """A handle on one session; leaving it as a context manager deletes the session.

    It holds no connection: when the daemon was started again, it goes on with the session if that was kept, and
    raises `SessionLost` if not.
    """

    def __init__(self, client: AsyncClient, model: str, session_id: str, created_at: float | None = None) -> None:
        self._client = client
        self._created_at = created_at
        self.model = model
        self.id = session_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.delete()

    async def predict(
        self,
        array: ArrayLike,
        *,
        adapt: bool = True,
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Prediction:
        """Answer samples `[B, ...]` (or one without B), which the session may then learn from if `adapt`."""
        info = await self._client.model(self.model, timeout_seconds=timeout_seconds)
        operation = operations.predict(info, array, messages.sequence(self.id, adapt), request_id)
        return await self._call(operation, timeout_seconds)

    def predict_stream(
        self,
        arrays: AsyncIterable[ArrayLike] | Iterable[ArrayLike],
        *,
        adapt: bool = True,
        in_flight: int = DEFAULT_IN_FLIGHT,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[Prediction]:
        """`predict` of every array, answers in their order, at most `in_flight` under way; see the client's."""

        async def one(array: ArrayLike) -> Prediction:
            return await self.predict(array, adapt=adapt, timeout_seconds=timeout_seconds)

        return in_order(arrays, one, in_flight)

    async def feedback(
        self, request_id: str, label: int, row: int = 0, *, timeout_seconds: float | None = None
    ) -> FeedbackResult:
        """Tell the true label of row `row` of an earlier answer."""
        labels = (Feedback(request_id, label, row),)
        return await self._call(operations.feedback(self.model, self.id, labels), timeout_seconds)

    async def get(self, *, timeout_seconds: float | None = None) -> SessionView:
        """The session as it stands."""
        return await self._call(operations.get_session(self.model, self.id), timeout_seconds)

    async def reset(self, *, timeout_seconds: float | None = None) -> SessionView:
        """Set it back to the source."""
        return await self._call(operations.reset_session(self.model, self.id), timeout_seconds)

    async def export(self, *, timeout_seconds: float | None = None) -> ExportedSession:
        """What it has learnt: parameters and statistics by name."""
        return await self._call(operations.export_session(self.model, self.id), timeout_seconds)

    async def delete(self, *, timeout_seconds: float | None = None) -> None:
        """Close and forget it."""
        await self._call(operations.delete_session(self.model, self.id), timeout_seconds)

    async def watch(self, *, resume_seconds: float = DEFAULT_RESUME_SECONDS) -> AsyncWatch:
        """Its events from now on."""
        return await self._client.watch(self.model, self.id, resume_seconds=resume_seconds)

    async def _call(self, operation: Operation[T], timeout_seconds: float | None) -> T:
        try:
            return await self._client._calls.call(operation, timeout_seconds)
        except ClientError as error:
            if self._created_at is None or error.reason != "SESSION_NOT_FOUND":
                raise
            gone = lost(error, self._created_at, (await self._client.server_info()).started_at)
            if gone is None:
                raise
            raise gone from error


__all__ = ["AsyncSession", "SessionLost"]
