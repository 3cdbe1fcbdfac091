"""What every rpc passes through: admission, decoding, error mapping, counting and logging, in one place.

Requests are decoded here and not by gRPC, so that a malformed message is INVALID_ARGUMENT with a reason and
not an internal error, and one that there is no room for is refused before anything is done about it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError

from acclimate.runtime.errors import AcclimateError, InvalidArgument, Unavailable
from acclimate.runtime.rpc import status
from acclimate.runtime.rpc.entrance import Entrance
from acclimate.runtime.rpc.limits import MessageLimits, check
from acclimate.runtime.rpc.stats import RpcStats
from acclimate.runtime.security import access

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

LOGGER = "acclimate.rpc"
log = structlog.stdlib.get_logger(LOGGER)
# Whose level says whether a line would be read.
own = logging.getLogger(LOGGER)

# What waits for the engine, and so has to be admitted.
ADMITTED = frozenset({access.OIP + "ModelInfer"})


class Edge(grpc.aio.ServerInterceptor):
    """Wraps every rpc of ours; reflection passes through."""

    def __init__(self, stats: RpcStats, limits: MessageLimits | None = None, entrance: Entrance | None = None) -> None:
        self._stats = stats
        self._limits = limits or MessageLimits()
        self._entrance = entrance
        self._draining = False
        self._said: tuple[AcclimateError, status.Refusal] | None = None
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    def drain(self) -> None:
        """Refuse what is asked of sessions from now on: they are being stored, and what came later would be lost."""
        self._draining = True

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Replace the handler by one that decodes, guards and counts; None means UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        name = handler_call_details.method
        if handler is None or name.startswith(access.REFLECTION):
            return handler
        known = self._wrapped.get(name)
        if known is None or known[0] is not handler:
            known = self._wrapped[name] = handler, self._around(name, handler)
        return known[1]

    def _around(self, full_name: str, handler: Handler) -> Handler:
        around: Handler
        method = short_name(full_name)
        if handler.request_streaming:
            around = grpc.stream_stream_rpc_method_handler(
                self._both(method, handler), response_serializer=handler.response_serializer
            )
        elif handler.response_streaming:
            around = grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler), response_serializer=handler.response_serializer
            )
        else:
            around = grpc.unary_unary_rpc_method_handler(
                self._unary(full_name, handler), response_serializer=handler.response_serializer
            )
        return around

    def _unary(self, full_name: str, handler: Handler) -> Callable[[bytes, Context], Awaitable[Any]]:
        serve: Any = handler.unary_unary
        method, entrance = short_name(full_name), self._entrance if full_name in ADMITTED else None
        about_sessions = full_name.startswith(access.SESSIONS)

        async def call(request: bytes, context: Context) -> Any:
            began, ended, held = time.perf_counter(), _Ended(), None
            # Not in the context manager of the others, which takes as long as all the rest here.
            try:
                if about_sessions and self._draining:
                    raise Unavailable(
                        "DRAINING", "the daemon is draining; ask another one, or this one once it is back"
                    )
                if entrance is not None:
                    held = entrance.take(request)
                message = _decoded(handler, request, self._limits)
                if entrance is not None and held is None:
                    held = entrance.take_after_all(message)
                return await serve(message, context)
            except BaseException as error:
                await self._failed(method, error, context, ended)
                raise
            finally:
                if held is not None:
                    held.back()
                self._count(method, ended, began)

        return call

    def _stream(self, method: str, handler: Handler) -> Callable[[bytes, Context], AsyncIterator[Any]]:
        serve: Any = handler.unary_stream

        async def call(request: bytes, context: Context) -> AsyncIterator[Any]:
            async with self._guarded(method, context):
                message = _decoded(handler, request, self._limits)
                async with aclosing(serve(message, context)) as replies:
                    async for reply in replies:
                        yield reply

        return call

    def _both(self, method: str, handler: Handler) -> Callable[[AsyncIterator[bytes], Context], AsyncIterator[Any]]:
        """Streams both ways; its servicer decodes each request, so that one may be refused and the stream go on."""
        serve: Any = handler.stream_stream

        async def call(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            async with self._guarded(method, context), aclosing(serve(requests, context)) as replies:
                async for reply in replies:
                    yield reply

        return call

    @asynccontextmanager
    async def _guarded(self, method: str, context: Context) -> AsyncIterator[None]:
        began, ended = time.perf_counter(), _Ended()
        try:
            yield
        except BaseException as error:
            await self._failed(method, error, context, ended)
            raise
        finally:
            self._count(method, ended, began)

    async def _failed(self, method: str, error: BaseException, context: Context, ended: _Ended) -> None:
        """Note how a rpc failed, and end it with that status; returns if gRPC does so by itself."""
        if isinstance(error, grpc.aio.AbortError):
            ended.code = status_code(context)
        elif isinstance(error, AcclimateError):
            if self._said is None or self._said[0] is not error:
                self._said = error, status.refusal(error)
            refusal = self._said[1]
            ended.code, ended.reason = refusal.code, error.reason
            await context.abort(refusal.code, refusal.details, refusal.trailers)
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            ended.code = grpc.StatusCode.CANCELLED
        elif isinstance(error, Exception):
            ended.code, ended.reason = grpc.StatusCode.INTERNAL, uuid.uuid4().hex
            log.exception("rpc failed", rpc=method, correlation_id=ended.reason)
            refusal = status.internal(ended.reason)
            await context.abort(refusal.code, refusal.details, refusal.trailers)

    def _count(self, method: str, ended: _Ended, began: float) -> None:
        code = ended.code.name
        self._stats.count(method, code)
        # Asked first, since preparing a line that nobody reads is a cost of every rpc.
        if own.isEnabledFor(logging.DEBUG):
            milliseconds = round((time.perf_counter() - began) * 1e3, 3)
            log.debug("rpc", rpc=method, code=code, reason=ended.reason, milliseconds=milliseconds)


@dataclass(slots=True)
class _Ended:
    """How a rpc ended."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""


def short_name(method: str) -> str:
    """`/package.Service/Method` -> `Service/Method`."""
    service, _, name = method.removeprefix("/").partition("/")
    return f"{service.rpartition('.')[2]}/{name}"


def _decoded(handler: Handler, request: bytes, limits: MessageLimits) -> Any:
    if handler.request_deserializer is None:
        return request
    try:
        message: Any = handler.request_deserializer(request)
    except DecodeError as error:
        raise InvalidArgument(
            "MESSAGE_MALFORMED",
            "the request is not a message of this rpc: a text in it is not UTF-8, or your stubs are not those of this "
            "version; compile them again",
        ) from error
    check(message, limits, len(request))
    return message


def status_code(context: Context) -> grpc.StatusCode:
    """The code that a servicer aborted with; grpc.aio keeps it as a number."""
    number: Any = context.code()
    for code in grpc.StatusCode:
        if number in (code, code.value[0]):
            return code
    return grpc.StatusCode.UNKNOWN
