"""What every rpc passes through: decoding, error mapping, counting and logging, in one place.

Requests are decoded here and not by gRPC, so that a malformed message is INVALID_ARGUMENT with a reason and
not an internal error.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError

from acclimate.runtime.errors import AcclimateError, InvalidArgument
from acclimate.runtime.rpc import status
from acclimate.runtime.rpc.limits import MessageLimits, check
from acclimate.runtime.rpc.stats import RpcStats

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

LOGGER = "acclimate.rpc"
log = structlog.stdlib.get_logger(LOGGER)


class Edge(grpc.aio.ServerInterceptor):
    """Wraps every rpc of ours; reflection, which streams both ways, passes through."""

    def __init__(self, stats: RpcStats, limits: MessageLimits | None = None) -> None:
        self._stats = stats
        self._limits = limits or MessageLimits()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Replace the handler by one that decodes, guards and counts; None means UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None or (handler.request_streaming and handler.request_deserializer is not None):
            return handler
        method = short_name(handler_call_details.method)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._both(method, handler), response_serializer=handler.response_serializer
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler), response_serializer=handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler), response_serializer=handler.response_serializer
        )

    def _unary(self, method: str, handler: Handler) -> Callable[[bytes, Context], Awaitable[Any]]:
        serve: Any = handler.unary_unary

        async def call(request: bytes, context: Context) -> Any:
            async with self._guarded(method, context):
                return await serve(_decoded(handler, request, self._limits), context)

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
        """Streams both ways; its servicer decodes each request."""
        serve: Any = handler.stream_stream

        async def call(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            async with self._guarded(method, context), aclosing(serve(requests, context)) as replies:
                async for reply in replies:
                    yield reply

        return call

    @asynccontextmanager
    async def _guarded(self, method: str, context: Context) -> AsyncIterator[None]:
        began = time.perf_counter()
        code, reason = grpc.StatusCode.OK, ""
        try:
            yield
        except AcclimateError as error:
            refusal = status.refusal(error)
            code, reason = refusal.code, error.reason
            await context.abort(refusal.code, refusal.details, refusal.trailers)
        except grpc.aio.AbortError:
            code = status_code(context)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception:
            code, reason = grpc.StatusCode.INTERNAL, uuid.uuid4().hex
            log.exception("rpc failed", rpc=method, correlation_id=reason)
            refusal = status.internal(reason)
            await context.abort(refusal.code, refusal.details, refusal.trailers)
        finally:
            self._stats.count(method, code.name)
            # Asked first, since preparing a line that nobody reads is a cost of every rpc.
            if logging.getLogger(LOGGER).isEnabledFor(logging.DEBUG):
                milliseconds = round((time.perf_counter() - began) * 1e3, 3)
                log.debug("rpc", rpc=method, code=code.name, reason=reason, milliseconds=milliseconds)


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
    check(message, limits)
    return message


def status_code(context: Context) -> grpc.StatusCode:
    """The code that a servicer aborted with; grpc.aio keeps it as a number."""
    number: Any = context.code()
    for code in grpc.StatusCode:
        if number in (code, code.value[0]):
            return code
    return grpc.StatusCode.UNKNOWN
