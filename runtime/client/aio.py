"""The asyncio client: the same calls as the blocking one, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from numpy.typing import ArrayLike

from acclimate.runtime.client import channel as channels
from acclimate.runtime.client import language, messages, operations
from acclimate.runtime.client.aio_session import AsyncSession
from acclimate.runtime.client.calling import AsyncCalls, Deadline, Link
from acclimate.runtime.client.errors import ClientError
from acclimate.runtime.client.generating import AsyncGeneration, AsyncLesson
from acclimate.runtime.client.language import First, Given, PromptLike, Spending
from acclimate.runtime.client.results import ModelInfo, Prediction, ServerInfo
from acclimate.runtime.client.secure import Tls, open_channel
from acclimate.runtime.client.streaming import DEFAULT_IN_FLIGHT, Refused
from acclimate.runtime.client.streams import predict_stream_async
from acclimate.runtime.client.watching import DEFAULT_RESUME_SECONDS, AsyncWatch
from acclimate.runtime.generation.types import Drawing, LearnRequest, ScoreReply, ScoreRequest, Strategy
from acclimate.runtime.rpc import convert_sessions
from acclimate.runtime.types import (
    Budget,
    EventKind,
    ExportedSession,
    Feedback,
    FeedbackResult,
    Scalar,
    Seed,
    SessionView,
)

POLL_SECONDS = 0.05


class AsyncClient:
    """One connection to a daemon, for the event loop it is made on. Every call raises `ClientError`.

    Args:
        target: `host:port` of the daemon's gRPC port.
        timeout_seconds: deadline of every call that says none itself; watches have none.
        max_message_bytes: largest request or reply; the daemon has a limit of its own, which is asked for.
        keepalive_seconds: time between pings while calls are under way, 10 s (what is tolerated) or more, or None.
        attempts: times that gRPC sends a call in all where that is safe, 1 to 5.
        reconnect: once the daemon has been met, let calls wait for a lost connection, up to their deadline.
        token: bearer token, sent with every call.
        tls: True for TLS with the authorities that gRPC trusts, or a `Tls` that says more.
        tenant: whose sessions an administrator's or operator's token is used for.

    Raises:
        ValueError: `attempts` or `keepalive_seconds` is out of range.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:8001",
        *,
        timeout_seconds: float = channels.DEFAULT_TIMEOUT_SECONDS,
        max_message_bytes: int = channels.DEFAULT_MAX_MESSAGE_BYTES,
        keepalive_seconds: float | None = channels.DEFAULT_KEEPALIVE_SECONDS,
        attempts: int = channels.DEFAULT_ATTEMPTS,
        reconnect: bool = True,
        token: str | None = None,
        tls: bool | Tls = False,
        tenant: str | None = None,
    ) -> None:
        options = channels.options(max_message_bytes, keepalive_seconds, attempts)
        self._channel = open_channel(grpc.aio, target, options, token, tls, tenant)
        self._calls = AsyncCalls(Link(self._channel, target, timeout_seconds, max_message_bytes, reconnect))
        self._models: dict[str, ModelInfo] = {}

    @classmethod
    def connect(cls, target: str, **options: Any) -> Self:
        """A client for `target`; the connection is made with the first call."""
        return cls(target, **options)

    async def close(self) -> None:
        """Give the connection up; calls under way fail."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def wait_until_ready(self, timeout_seconds: float = 30.0) -> None:
        """Return once the daemon accepts work; DEADLINE_EXCEEDED if it does not in time."""
        deadline = Deadline.of(timeout_seconds)
        while not await self._calls.once(operations.server_ready(), deadline.left, True):
            await asyncio.sleep(min(POLL_SECONDS, deadline.left))

    async def server_info(self, *, timeout_seconds: float | None = None) -> ServerInfo:
        """The daemon: version, process, limits, recipes, models."""
        return await self._calls.call(operations.server_info(), timeout_seconds)

    async def model(self, name: str, *, timeout_seconds: float | None = None) -> ModelInfo:
        """One served model; asked for once and then remembered."""
        if name not in self._models:
            self._models[name] = await self._calls.call(operations.model(name), timeout_seconds)
        return self._models[name]

    async def models(self) -> tuple[ModelInfo, ...]:
        """Every served model, by name."""
        return tuple([await self.model(name) for name in (await self.server_info()).models])

    async def predict(
        self,
        model: str,
        array: ArrayLike,
        *,
        parameters: Mapping[str, Scalar] | None = None,
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Prediction:
        """Answer samples `[B, ...]` (or one without B); stateless unless `parameters` name a sequence."""
        info = await self.model(model, timeout_seconds=timeout_seconds)
        return await self._calls.call(operations.predict(info, array, parameters, request_id), timeout_seconds)

    def predict_stream(
        self,
        model: str,
        arrays: AsyncIterable[ArrayLike] | Iterable[ArrayLike],
        *,
        parameters: Mapping[str, Scalar] | None = None,
        in_flight: int = DEFAULT_IN_FLIGHT,
        refused: Refused | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[Prediction]:
        """`predict` of every array over one stream, in their order, at most `in_flight` under way at once.

        A stream that breaks is taken up again, and what was not answered is asked again: learnt from once, unless the
        daemon was another one by then. `timeout_seconds` is each array's own. One that is refused ends the stream at
        its place, or is told to `refused`.
        """
        return predict_stream_async(self, model, arrays, parameters, in_flight, refused, timeout_seconds)

    async def create_session(
        self,
        model: str,
        session_id: str | None = None,
        *,
        recipe: str | None = None,
        recipe_parameters: Mapping[str, float] | None = None,
        budget: Budget | None = None,
        seed: Seed | None = None,
        ttl_seconds: float | None = None,
        labels: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncSession:
        """Open a session, at the source or at a seed (`read_seed`); what else is None is the daemon's choice.

        It is closed when nobody uses it for `ttl_seconds`; 0: never. `labels` are words to find it by.
        """
        operation = operations.create_session(
            model, session_id, recipe, recipe_parameters, budget, seed, ttl_seconds, labels
        )
        view = await self._calls.call(operation, timeout_seconds)
        return AsyncSession(self, view.model, view.session_id, view.created_at)

    def session(self, model: str, session_id: str) -> AsyncSession:
        """A handle on a session that exists; nothing is asked of the daemon."""
        return AsyncSession(self, model, session_id)

    async def list_sessions(
        self,
        model: str | None = None,
        *,
        filter: str = "",  # noqa: A002 - the name of the rpc's field
        every_tenant: bool = False,
        page_size: int = 0,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[SessionView]:
        """Every session, of one model or of all, fetched page by page.

        `filter` says which (`labels.site = "hall 3" AND state = ADAPTED`); an administrator may ask for `every_tenant`.
        """
        token = ""
        while True:
            operation = operations.list_sessions(model, page_size, token, filter, every_tenant)
            page = await self._calls.call(operation, timeout_seconds)
            for message in page.sessions:
                yield convert_sessions.session_view(message)
            token = page.next_page_token
            if not token:
                return

    async def get_session(self, model: str, session_id: str, *, timeout_seconds: float | None = None) -> SessionView:
        """One session as it stands."""
        return await self._calls.call(operations.get_session(model, session_id), timeout_seconds)

    async def reset_session(
        self, model: str, session_id: str, *, etag: str = "", timeout_seconds: float | None = None
    ) -> SessionView:
        """Set a session back to the source; ABORTED if `etag` is given and is not the session's."""
        return await self._calls.call(operations.reset_session(model, session_id, etag), timeout_seconds)

    async def export_session(
        self, model: str, session_id: str, *, timeout_seconds: float | None = None
    ) -> ExportedSession:
        """What a session has learnt: parameters and statistics by name."""
        return await self._calls.call(operations.export_session(model, session_id), timeout_seconds)

    async def delete_session(
        self, model: str, session_id: str, *, etag: str = "", timeout_seconds: float | None = None
    ) -> None:
        """Close and forget a session, snapshots and all; ABORTED if `etag` is given and is not the session's."""
        await self._calls.call(operations.delete_session(model, session_id, etag), timeout_seconds)

    async def feedback(
        self, model: str, session_id: str, labels: Iterable[Feedback], *, timeout_seconds: float | None = None
    ) -> FeedbackResult:
        """Tell true labels of earlier answers."""
        return await self._calls.call(operations.feedback(model, session_id, tuple(labels)), timeout_seconds)

    def generate(
        self,
        model: str,
        prompt: PromptLike,
        *,
        session_id: str | None = None,
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
        """The tokens of a text as they are written, by a session or by the base; see `Client.generate`."""
        drawing = Drawing(max_tokens, temperature, top_p, tuple(stop), seed, strategy, samples)
        request = language.generate_request(model, session_id, prompt, drawing, budget, learn)
        return AsyncGeneration(self._calls, request, timeout_seconds)

    def learn(
        self,
        model: str,
        session_id: str,
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
        """Let a session learn texts, or what follows prompts: progress as it goes, `wait()` for how it ended.

        It begins when it is first read, and has no deadline unless `timeout_seconds` says one.
        """
        given = language.material(texts, pairs, demonstrations)
        chosen = dict(recipe_parameters or {})
        request = LearnRequest(model, session_id, given, recipe, chosen, max_tokens, max_ms, etag)
        return AsyncLesson(self._calls, request, timeout_seconds)

    async def score(
        self,
        model: str,
        texts: Sequence[str],
        *,
        session_id: str | None = None,
        context: PromptLike | None = None,
        each_token: bool = False,
        timeout_seconds: float | None = None,
    ) -> ScoreReply:
        """Log-probability and perplexity of texts, each after the same context if there is one."""
        before = None if context is None else language.prompt_of(context)
        request = ScoreRequest(model, session_id, tuple(texts), before, each_token)
        return await self._calls.call(language.score(request), timeout_seconds)

    async def watch(
        self,
        model: str | None = None,
        session_id: str | None = None,
        *,
        kinds: Collection[EventKind] = (),
        resume_seconds: float = DEFAULT_RESUME_SECONDS,
    ) -> AsyncWatch:
        """Events from now on, of `kinds` or of all: the watch stands when this returns. Close it when done.

        A stream that ended is taken up again for up to `resume_seconds`, where it was if the daemon is the same.
        """
        return await AsyncWatch.begin(self._calls, messages.watch_request(model, session_id, kinds), resume_seconds)


__all__ = ["AsyncClient", "AsyncSession", "AsyncWatch", "ClientError"]
