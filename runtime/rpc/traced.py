"""The outermost interceptor where tracing is on: a span around every rpc but those about the daemon itself."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from acclimate.runtime.rpc.gate import KINDS
from acclimate.runtime.rpc.interceptor import Context, Handler, status_code
from acclimate.runtime.tracing.base import RpcSpan, Tracer

UNTRACED = ("/grpc.health.", "/grpc.reflection.")
# What the conventions for rpc spans count as the server's own failures.
FAILURES = frozenset({
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
})  # fmt: skip


class Traced(grpc.aio.ServerInterceptor):
    """Begins and ends the spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler with a span around it; None means UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(UNTRACED):
            return handler
        serve: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def one(request: Any, context: Context) -> Any:
            span = self._begin(method, context)
            try:
                reply = await serve(request, context)
            except BaseException as error:
                self._end(span, _code(error, context))
                raise
            self._end(span, grpc.StatusCode.OK)
            return reply

        async def many(request: Any, context: Context) -> AsyncIterator[Any]:
            span, code = self._begin(method, context), grpc.StatusCode.OK
            try:
                replies = serve(request, context)
                if inspect.isawaitable(replies):
                    await replies
                    return
                async with aclosing(replies):
                    async for reply in replies:
                        yield reply
            except BaseException as error:
                code = _code(error, context)
                raise
            finally:
                self._end(span, code)

        traced: Handler = KINDS[handler.request_streaming, handler.response_streaming](
            many if handler.response_streaming else one, handler.request_deserializer, handler.response_serializer
        )
        return traced

    def _begin(self, method: str, context: Context) -> RpcSpan:
        return self._tracer.rpc(method, tuple(context.invocation_metadata() or ()))

    def _end(self, span: RpcSpan, code: grpc.StatusCode) -> None:
        span.end(code.value[0], failed=code in FAILURES)


def _code(error: BaseException, context: Context) -> grpc.StatusCode:
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return grpc.StatusCode.CANCELLED
    return status_code(context)
