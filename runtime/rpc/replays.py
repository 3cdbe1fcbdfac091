"""Requests that are sent twice and done once (AIP-155): the reply to the first is the reply to all.

Only what succeeded is remembered: what was refused changed nothing, and may well succeed the next time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import wraps
from hashlib import blake2b
from typing import Any, TypeVar

from google.protobuf.message import Message

from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.store.base import REMEMBERED, Reply
from acclimate.v1 import session_service_pb2 as pb

MAX_ID = 128

Key = tuple[str, str, str, str]
Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


@dataclass(eq=False, slots=True)
class _Held:
    """A request under way or done, to be recognised by its digest, and its reply once there is one."""

    request: bytes
    reply: Message | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Replays:
    """The latest requests that carried an id. Touched on the event loop's thread only.

    Args:
        past: replies that an earlier run has kept.
        keep: told of each new one.
        capacity: how many are remembered.
    """

    def __init__(
        self,
        past: Iterable[Reply] = (),
        keep: Callable[[Reply], None] = lambda _: None,
        capacity: int = REMEMBERED,
    ) -> None:
        self._capacity = capacity
        self._keep = keep
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        for reply in past:
            kind = getattr(pb, reply.kind.replace("Request", "Response"), None)
            if kind is not None:
                held = _Held(reply.request, kind.FromString(reply.reply))
                self._held[reply.tenant, reply.kind, reply.resource, reply.request_id] = held

    async def once(self, tenant: str, resource: str, request: Any, work: Callable[[], Awaitable[Any]]) -> Any:
        """The reply of `work`, or of the tenant's same request on `resource` before; one under way is waited for.

        Raises:
            InvalidArgument: the id is too long, or came with another request.
        """
        if not request.request_id:
            return await work()
        key, content = _key(tenant, resource, request), _digest(request)
        while (held := self._held.get(key)) is not None:
            if held.request != content:
                raise InvalidArgument(
                    "REQUEST_ID_REUSED",
                    f"request_id {request.request_id!r} came with another request before; give each request its own",
                    field="request_id",
                )
            if held.reply is not None:
                return held.reply
            await held.over.wait()
        mine = self._held[key] = _Held(content)
        try:
            mine.reply = await work()
            self._keep(Reply(*key, content, mine.reply.SerializeToString(), _session(tenant, request, mine.reply)))
        finally:
            mine.over.set()
            if mine.reply is None and self._held.get(key) is mine:
                del self._held[key]
            while len(self._held) > self._capacity:
                self._held.popitem(last=False)
        return mine.reply


def replayed(resource: str) -> Callable[[Method], Method]:
    """Make a servicer's method answer a repeated `request_id` from memory; `resource` is the field that it acts on."""

    def decorated(method: Method) -> Method:
        @wraps(method)
        async def call(self: Any, request: Any, context: Any) -> Any:
            tenant, about = self._service.lifecycle.tenant, getattr(request, resource)
            return await self._replays.once(tenant, about, request, lambda: method(self, request, context))

        return call  # type: ignore[return-value]

    return decorated


def _digest(request: Message) -> bytes:
    return blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest()


def _session(tenant: str, request: Any, reply: Any) -> tuple[str, str, str]:
    """What a request was done to: the session that its reply names, or else the request."""
    named = getattr(reply, "session", None) or getattr(reply, "snapshot", None) or request
    parts = named.name.split("/")
    return (tenant, parts[1], parts[3]) if len(parts) >= 4 else (tenant, "", "")


def _key(tenant: str, resource: str, request: Any) -> Key:
    if len(request.request_id) > MAX_ID:
        raise InvalidArgument(
            "REQUEST_ID_INVALID",
            f"request_id has {len(request.request_id)} characters; at most {MAX_ID} are accepted",
            field="request_id",
        )
    return tenant, type(request).__name__, resource, request.request_id
