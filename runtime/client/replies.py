"""Rpcs that stream their replies, as iterators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, TypeVar

import grpc

from acclimate.runtime.client.calling import AsyncCalls, Calls, Deadline, cut_off
from acclimate.runtime.client.errors import client_error
from acclimate.runtime.client.operations import Operation

T = TypeVar("T")
C = TypeVar("C", Calls, AsyncCalls)


class _Streamed(Generic[C, T]):
    """A rpc that streams its replies, and whether it is over."""

    def __init__(self, calls: C, operation: Operation[T], timeout_seconds: float | None) -> None:
        self._calls: C = calls
        self._operation, self._timeout = operation, timeout_seconds
        self._call: Any = None
        self._closed = False

    def close(self) -> None:
        """Cancel the rpc, if it has not ended."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()


class Replies(_Streamed[Calls, T], Iterator[T]):
    """The replies of a rpc that streams them; the rpc begins with the first that is asked for."""

    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        try:
            if self._call is None:
                self._calls.check_size(self._operation, Deadline.of(self._calls.link.timeout_seconds))
                self._call = _opened(self._calls, self._operation, self._timeout)
            reply = next(self._call)
        except grpc.RpcError as error:
            self._closed = True
            raise cut_off(client_error(error)) from error
        self._calls.link.met = True
        return self._operation.read(reply)


class AsyncReplies(_Streamed[AsyncCalls, T], AsyncIterator[T]):
    """The same, awaited."""

    _replies: Any = None

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        try:
            if self._call is None:
                await self._calls.check_size(self._operation, Deadline.of(self._calls.link.timeout_seconds))
                self._call = _opened(self._calls, self._operation, self._timeout)
                self._replies = aiter(self._call)
            reply = await anext(self._replies)
        except asyncio.CancelledError:
            # The call's own cancellation looks like the task's.
            if self._closed:
                raise StopAsyncIteration from None
            raise
        except grpc.RpcError as error:
            self._closed = True
            raise cut_off(client_error(error)) from error
        self._calls.link.met = True
        return self._operation.read(reply)


def _opened(calls: Calls | AsyncCalls, operation: Operation[Any], timeout_seconds: float | None) -> Any:
    rpc = calls.link.channel.unary_stream(
        operation.path,
        request_serializer=type(operation.request).SerializeToString,
        response_deserializer=operation.reply.FromString,
    )
    return rpc(operation.request, timeout=timeout_seconds, wait_for_ready=calls.link.waits)
