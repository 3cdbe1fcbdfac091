"""An asyncio handle on one session."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from numpy.typing import ArrayLike

from acclimate.runtime.client import messages, operations
from acclimate.runtime.client.errors import ClientError, SessionLost, lost
from acclimate.runtime.client.generating import AsyncGeneration, AsyncLesson
from acclimate.runtime.client.language import First, Given, PromptLike, Spending
from acclimate.runtime.client.operations import Operation
from acclimate.runtime.client.results import Prediction
from acclimate.runtime.client.streaming import DEFAULT_IN_FLIGHT, Refused
from acclimate.runtime.client.streams import Terms, predict_stream_async
from acclimate.runtime.client.watching import DEFAULT_RESUME_SECONDS, AsyncWatch
from acclimate.runtime.generation.types import ScoreReply, Strategy
from acclimate.runtime.lifecycle_types import SnapshotView
from acclimate.runtime.rpc import convert_lifecycle
from acclimate.runtime.types import Budget, EventKind, ExportedSession, Feedback, FeedbackResult, SessionView

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

    async def predict_stream(
        self,
        arrays: AsyncIterable[ArrayLike] | Iterable[ArrayLike],
        *,
        adapt: bool = True,
        in_flight: int = DEFAULT_IN_FLIGHT,
        refused: Refused | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[Prediction]:
        """`predict` of every array over one stream, answers in their order; see the client's."""
        parameters, terms = messages.sequence(self.id, adapt), Terms(in_flight, refused, timeout_seconds)
        answers = predict_stream_async(self._client, self.model, arrays, parameters, terms)
        try:
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        except ClientError as error:
            raise await self._explained(error) from error.__cause__

    async def feedback(
        self, request_id: str, label: int, row: int = 0, *, timeout_seconds: float | None = None
    ) -> FeedbackResult:
        """Tell the true label of row `row` of an earlier answer."""
        labels = (Feedback(request_id, label, row),)
        return await self._call(operations.feedback(self.model, self.id, labels), timeout_seconds)

    async def get(self, *, timeout_seconds: float | None = None) -> SessionView:
        """The session as it stands."""
        return await self._call(operations.get_session(self.model, self.id), timeout_seconds)

    async def reset(self, *, etag: str = "", timeout_seconds: float | None = None) -> SessionView:
        """Set it back to the source."""
        return await self._call(operations.reset_session(self.model, self.id, etag), timeout_seconds)

    async def pause(self, *, etag: str = "", timeout_seconds: float | None = None) -> SessionView:
        """Let it learn nothing from now on; it answers as before."""
        return await self._call(operations.pause_session(self.model, self.id, etag), timeout_seconds)

    async def resume(self, *, etag: str = "", timeout_seconds: float | None = None) -> SessionView:
        """Let it learn again."""
        return await self._call(operations.resume_session(self.model, self.id, etag), timeout_seconds)

    async def update(
        self,
        *,
        budget: Budget | None = None,
        ttl_seconds: float | None = None,
        labels: Mapping[str, str | None] | None = None,
        etag: str = "",
        timeout_seconds: float | None = None,
    ) -> SessionView:
        """Give it another budget or time-to-live (0: for ever); None leaves what there is.

        `labels` are set, those that are None taken away; others stay.
        """
        operation = operations.update_session(self.model, self.id, budget, ttl_seconds, etag, labels)
        return await self._call(operation, timeout_seconds)

    async def fork(
        self,
        session_id: str | None = None,
        *,
        snapshot_id: str | None = None,
        budget: Budget | None = None,
        ttl_seconds: float | None = None,
        etag: str = "",
        timeout_seconds: float | None = None,
    ) -> AsyncSession:
        """Open a copy of it, or of a snapshot of it; what is None is as here, but the id, which the daemon makes."""
        operation = operations.fork_session(self.model, self.id, session_id, snapshot_id, budget, ttl_seconds, etag)
        view = await self._call(operation, timeout_seconds)
        return AsyncSession(self._client, view.model, view.session_id, view.created_at)

    async def snapshot(
        self, snapshot_id: str | None = None, *, etag: str = "", timeout_seconds: float | None = None
    ) -> SnapshotView:
        """Keep what it has learnt so far, under an id that the daemon makes if it is None."""
        return await self._call(operations.snapshot_session(self.model, self.id, snapshot_id, etag), timeout_seconds)

    async def snapshots(
        self, *, page_size: int = 0, timeout_seconds: float | None = None
    ) -> AsyncIterator[SnapshotView]:
        """Its snapshots by id, fetched page by page."""
        token = ""
        while True:
            page = await self._call(operations.list_snapshots(self.model, self.id, page_size, token), timeout_seconds)
            for message in page.snapshots:
                yield convert_lifecycle.snapshot_view(message)
            token = page.next_page_token
            if not token:
                return

    async def get_snapshot(self, snapshot_id: str, *, timeout_seconds: float | None = None) -> SnapshotView:
        """One of its snapshots."""
        return await self._call(operations.get_snapshot(self.model, self.id, snapshot_id), timeout_seconds)

    async def delete_snapshot(self, snapshot_id: str, *, timeout_seconds: float | None = None) -> None:
        """Forget one of its snapshots."""
        await self._call(operations.delete_snapshot(self.model, self.id, snapshot_id), timeout_seconds)

    async def restore(self, snapshot_id: str, *, etag: str = "", timeout_seconds: float | None = None) -> SessionView:
        """Let it be what it was at a snapshot."""
        return await self._call(operations.restore_session(self.model, self.id, snapshot_id, etag), timeout_seconds)

    async def export(self, *, timeout_seconds: float | None = None) -> ExportedSession:
        """What it has learnt: parameters and statistics by name."""
        return await self._call(operations.export_session(self.model, self.id), timeout_seconds)

    async def delete(self, *, etag: str = "", timeout_seconds: float | None = None) -> None:
        """Close and forget it."""
        await self._call(operations.delete_session(self.model, self.id, etag), timeout_seconds)

    def generate(
        self,
        prompt: PromptLike,
        *,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
        strategy: Strategy = Strategy.NONE,
        samples: int = 1,
        budget: Spending = None,
        learn: First = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGeneration:
        """The tokens of a text that it writes; see the client's."""
        return self._client.generate(
            self.model, prompt, session_id=self.id,
            max_tokens=max_tokens, temperature=temperature, top_p=top_p, stop=stop, seed=seed,
            strategy=strategy, samples=samples, budget=budget, learn=learn, timeout_seconds=timeout_seconds,
        )  # fmt: skip

    def learn(
        self,
        *,
        texts: Sequence[str] = (),
        pairs: Given = (),
        demonstrations: Given = (),
        recipe: str | None = None,
        recipe_parameters: Mapping[str, float] | None = None,
        max_tokens: int | None = None,
        max_ms: float | None = None,
        etag: str = "",
        timeout_seconds: float | None = None,
    ) -> AsyncLesson:
        """Let it learn; see the client's."""
        return self._client.learn(
            self.model, self.id, texts=texts, pairs=pairs, demonstrations=demonstrations,
            recipe=recipe, recipe_parameters=recipe_parameters, max_tokens=max_tokens, max_ms=max_ms, etag=etag,
            timeout_seconds=timeout_seconds,
        )  # fmt: skip

    async def score(
        self,
        texts: Sequence[str],
        *,
        context: PromptLike | None = None,
        each_token: bool = False,
        timeout_seconds: float | None = None,
    ) -> ScoreReply:
        """Log-probability and perplexity of texts; see the client's."""
        return await self._client.score(
            self.model, texts, session_id=self.id, context=context, each_token=each_token,
            timeout_seconds=timeout_seconds,
        )  # fmt: skip

    async def watch(
        self, *, kinds: Collection[EventKind] = (), resume_seconds: float = DEFAULT_RESUME_SECONDS
    ) -> AsyncWatch:
        """Its events from now on."""
        return await self._client.watch(self.model, self.id, kinds=kinds, resume_seconds=resume_seconds)

    async def _call(self, operation: Operation[T], timeout_seconds: float | None) -> T:
        try:
            return await self._client._calls.call(operation, timeout_seconds)
        except ClientError as error:
            explained = await self._explained(error)
            if explained is error:
                raise
            raise explained from error

    async def _explained(self, error: ClientError) -> ClientError:
        if self._created_at is None or error.reason != "SESSION_NOT_FOUND":
            return error
        return lost(error, self._created_at, (await self._client.server_info()).started_at) or error


__all__ = ["AsyncSession", "SessionLost"]
