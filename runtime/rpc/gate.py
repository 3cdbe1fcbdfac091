"""The first interceptor: says who an rpc is from, or ends it before its request is read.

A credential in the metadata is looked at before the first message; one that is the connection's certificate only
when the handler runs, for only then gRPC tells it. The caller is set in the task that runs the rpc.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import structlog

from acclimate.runtime.errors import AcclimateError
from acclimate.runtime.rpc import status
from acclimate.runtime.rpc.entrance import Entrance
from acclimate.runtime.rpc.interceptor import ADMITTED, Context, Handler, short_name
from acclimate.runtime.rpc.stats import RpcStats
from acclimate.runtime.security import access
from acclimate.runtime.security.caller import current, enter
from acclimate.runtime.security.guard import Guard

Requests: TypeAlias = AsyncIterator[Any]
# What gRPC calls the names of a verified client certificate.
CERTIFICATE_NAMES = {"common_name": "x509_common_name", "san": "peer_dns"}
KINDS: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

LOGGER = "acclimate.security"
log = structlog.stdlib.get_logger(LOGGER)


class Gate(grpc.aio.ServerInterceptor):
    """Guards every rpc, of every kind, ours or not."""

    def __init__(self, guard: Guard, stats: RpcStats, entrance: Entrance | None = None) -> None:
        self._guard = guard
        self._stats = stats
        self._entrance = entrance
        self._full: tuple[AcclimateError, Handler] | None = None

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler, or one that refuses; None means UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method, metadata = handler_call_details.method, tuple(handler_call_details.invocation_metadata or ())
        try:
            self._guard.check(metadata)
            if self._guard.awaits_certificate(method, metadata):
                return self._wrapped(handler, lambda context: self._by_certificate(method, handler, context))
            caller = self._guard.admit(method, metadata, charge=not handler.request_streaming)
            enter(caller)
            if self._entrance is not None and method in ADMITTED:
                full = self._entrance.refuses_unread(caller.tenant)
                if full is not None:
                    return self._crowded(method, full)
        except AcclimateError as error:
            return self._refusing(method, error)
        streams = handler.request_streaming or handler.response_streaming
        return self._wrapped(handler, _entered) if streams and method not in access.OPEN else handler

    async def _by_certificate(self, method: str, handler: Handler, context: Context) -> None:
        property_name = CERTIFICATE_NAMES.get(self._guard.certificate, "")
        names = [name.decode("utf-8", "replace") for name in context.auth_context().get(property_name, ())]
        try:
            metadata = tuple(context.invocation_metadata() or ())
            enter(self._guard.admit(method, metadata, names, charge=not handler.request_streaming))
        except AcclimateError as error:
            await self._abort(short_name(method), status.refusal(error), error.reason, context)

    def _crowded(self, method: str, error: AcclimateError) -> Handler:
        """What refuses for want of room; many get the same error, and so the same handler."""
        if self._full is None or self._full[0] is not error:
            self._full = error, self._refusing(method, error)
        return self._full[1]

    def _refusing(self, method: str, error: AcclimateError) -> Handler:
        refusal, name = status.refusal(error), short_name(method)

        async def refuse(_: Requests, context: Context) -> None:
            await self._abort(name, refusal, error.reason, context)

        # Of the kind that need not read a request before it answers.
        handler: Handler = grpc.stream_stream_rpc_method_handler(refuse)
        return handler

    async def _abort(self, name: str, refusal: status.Refusal, reason: str, context: Context) -> None:
        self._stats.count(name, refusal.code.name)
        # Asked first, since preparing a line that nobody reads costs more than the refusal.
        if logging.getLogger(LOGGER).isEnabledFor(logging.DEBUG):
            log.debug("refused", rpc=name, reason=reason, peer=context.peer())
        await context.abort(refusal.code, refusal.details, refusal.trailers)

    def _wrapped(self, handler: Handler, before: Callable[[Context], Awaitable[None]]) -> Handler:
        """The same handler: `before` comes first, messages are held to their rate, and streams end with their token."""
        serve: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        def given(request: Any, context: Context) -> Any:
            return self._paced(request, context) if handler.request_streaming else request

        async def one(request: Any, context: Context) -> Any:
            await before(context)
            return await serve(given(request, context), context)

        async def many(request: Any, context: Context) -> AsyncIterator[Any]:
            await before(context)
            replies = serve(given(request, context), context)
            if inspect.isawaitable(replies):
                await replies
                return
            async with aclosing(replies):
                async for reply in replies:
                    await self._still(context)
                    yield reply

        wrapped: Handler = KINDS[handler.request_streaming, handler.response_streaming](
            many if handler.response_streaming else one, handler.request_deserializer, handler.response_serializer
        )
        return wrapped

    async def _paced(self, requests: Requests, context: Context) -> Requests:
        """Messages as fast as the tenant's quota grants them; the client waits, as with any slow reader."""
        tenant = current().tenant
        async for request in requests:
            await self._still(context)
            while wait := self._guard.quotas.delay(tenant):
                await asyncio.sleep(wait)
            yield request

    async def _still(self, context: Context) -> None:
        """End a stream whose token was revoked or has expired since it began."""
        try:
            self._guard.stands(tuple(context.invocation_metadata() or ()))
        except AcclimateError as error:
            refusal = status.refusal(error)
            await context.abort(refusal.code, refusal.details, refusal.trailers)


async def _entered(_: Context) -> None:
    """The caller is known already."""
