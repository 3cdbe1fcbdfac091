"""Watches: iterators over events that take a broken stream up again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from acclimate.runtime.client import operations
from acclimate.runtime.client.calling import ATTEMPT_SECONDS, AWAY, AsyncCalls, Calls, Deadline, pauses
from acclimate.runtime.client.channel import SESSION_SERVICE
from acclimate.runtime.client.errors import ClientError, client_error
from acclimate.runtime.rpc import convert_sessions
from acclimate.runtime.types import Event
from acclimate.v1 import session_service_pb2 as pb

DEFAULT_RESUME_SECONDS = 30.0
BROKEN = ("UNAVAILABLE", "CANCELLED")


class _Place:
    """Where a watch is: what it asks for, after which event, and how often it began anew or lost something.

    Args:
        request: what to watch; a copy of it is kept up to date.
        resume_seconds: for how long a stream that ended is taken up again; 0 ends the watch with the stream.
    """

    def __init__(self, request: pb.WatchSessionsRequest, resume_seconds: float) -> None:
        self._request = pb.WatchSessionsRequest()
        self._request.CopyFrom(request)
        self._resume_seconds = resume_seconds
        self.resumed = 0
        """How often the stream was taken up again."""
        self.missed = 0
        """How often events may have been lost: the daemon did not remember them, or the reader was too slow."""

    def _told(self, reply: pb.WatchSessionsResponse) -> Event:
        self._request.resume_token = reply.resume_token
        self.missed += reply.missed
        return convert_sessions.event(reply.event)

    def _began_anew(self) -> None:
        self.resumed += 1
        # Before its first event a watch has nothing to go on from.
        self.missed += not self._request.resume_token


class Watch(_Place):
    """An iterator over events; ends when it is closed, or the daemon has drained and does not come back.

    A stream that breaks, or that a draining daemon ends, is taken up again, where it was, for up to `resume_seconds`;
    then the watch ends, by `ClientError` if the stream had broken.
    """

    def __init__(self, calls: Calls, request: pb.WatchSessionsRequest, resume_seconds: float) -> None:
        super().__init__(request, resume_seconds)
        self._calls = calls
        self._closed = threading.Event()
        calls.call(operations.server_live())
        self._call = self._open()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._closed.is_set():
            broke: ClientError | None = None
            try:
                return self._told(next(self._call))
            except StopIteration:
                pass
            except grpc.RpcError as error:
                broke = client_error(error)
            if not self._closed.is_set():
                self._resume(broke)
        raise StopIteration

    def close(self) -> None:
        """End the watch; may be called from another thread."""
        self._closed.set()
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Any:
        call = stream(self._calls.link.channel)(self._request)
        call.initial_metadata()
        return call

    def _resume(self, broke: ClientError | None) -> None:
        if broke is not None and broke.code not in BROKEN:
            raise broke
        deadline = Deadline.of(self._resume_seconds)
        for pause in pauses():
            if self._closed.is_set():
                return
            if deadline.left == 0:
                self._closed.set()
                if broke is not None:
                    raise broke
                return
            try:
                if self._calls.once(operations.server_ready(), min(ATTEMPT_SECONDS, deadline.left), True):
                    self._call = self._open()
                    self._began_anew()
                    return
            except ClientError as error:
                if error.code not in AWAY:
                    raise
            self._closed.wait(min(pause, deadline.left))


class AsyncWatch(_Place):
    """The same as an asynchronous iterator; made by `AsyncWatch.begin`."""

    def __init__(self, calls: AsyncCalls, request: pb.WatchSessionsRequest, resume_seconds: float) -> None:
        super().__init__(request, resume_seconds)
        self._calls = calls
        self._closed = False
        self._call: Any = None
        self._events: Any = None

    @classmethod
    async def begin(cls, calls: AsyncCalls, request: pb.WatchSessionsRequest, resume_seconds: float) -> Self:
        """A watch that stands."""
        watch = cls(calls, request, resume_seconds)
        await calls.call(operations.server_live())
        await watch._open()
        return watch

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._closed:
            broke: ClientError | None = None
            try:
                return self._told(await anext(self._events))
            except StopAsyncIteration:
                pass
            except asyncio.CancelledError:
                # The call's own cancellation looks like the task's.
                if not self._closed:
                    raise
            except grpc.RpcError as error:
                broke = client_error(error)
            if not self._closed:
                await self._resume(broke)
        raise StopAsyncIteration

    async def close(self) -> None:
        """End the watch."""
        self._closed = True
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open(self) -> None:
        self._call = stream(self._calls.link.channel)(self._request)
        await self._call.initial_metadata()
        self._events = aiter(self._call)

    async def _resume(self, broke: ClientError | None) -> None:
        if broke is not None and broke.code not in BROKEN:
            raise broke
        deadline = Deadline.of(self._resume_seconds)
        for pause in pauses():
            if self._closed:
                return
            if deadline.left == 0:
                self._closed = True
                if broke is not None:
                    raise broke
                return
            try:
                if await self._calls.once(operations.server_ready(), min(ATTEMPT_SECONDS, deadline.left), True):
                    await self._open()
                    self._began_anew()
                    return
            except ClientError as error:
                if error.code not in AWAY:
                    raise
            await asyncio.sleep(min(pause, deadline.left))


def stream(channel: Any) -> Any:
    """The callable for WatchSessions."""
    return channel.unary_stream(
        f"/{SESSION_SERVICE}/WatchSessions",
        request_serializer=pb.WatchSessionsRequest.SerializeToString,
        response_deserializer=pb.WatchSessionsResponse.FromString,
    )
