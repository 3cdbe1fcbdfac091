"""Making one call: message size, deadline, a lost connection, and what the daemon turned away.

gRPC retries by itself what may be retried blindly (`channel.service_config`). What needs a look at the error is done
here: a call that a draining daemon refused was not begun, so it is sent again, whatever it is; and once a daemon has
been met, calls wait for a lost connection to come back, before they are sent, up to their deadline.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from acclimate.runtime.client import operations
from acclimate.runtime.client.errors import ClientError, client_error
from acclimate.runtime.client.operations import Operation

T = TypeVar("T")

# Messages up to this size fit every daemon; before a larger one is sent, the daemon is asked for its limit.
SMALLEST_LIMIT = 2**16
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.05, 1.0
PROBE_SECONDS = 0.5
# How long one attempt to reach the daemon may take, so that the end of who waits for it is noticed.
ATTEMPT_SECONDS = 1.0
# What says that it was not reached.
AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
# What gRPC says of the calls of a channel that was closed, and of a message that a broken connection did not take.
CLOSED_HERE = "Channel closed!"
WRITE_FAILED = "Internal error from Core"


@dataclass(slots=True)
class Link:
    """What both kinds of caller know of their connection.

    Attributes:
        channel: blocking or asyncio.
        target: where to.
        timeout_seconds: deadline of a call that says none.
        max_message_bytes: the client's own limit; `limit` is the lower of it and the daemon's, once known.
        reconnect: whether calls wait for a connection that was lost.
        met: whether the daemon has answered before.
    """

    channel: Any
    target: str
    timeout_seconds: float
    max_message_bytes: int
    reconnect: bool
    met: bool = False
    limit: int | None = None
    _rpcs: dict[str, Any] = field(default_factory=dict)

    def rpc(self, operation: Operation[Any]) -> Any:
        """The channel's callable for an operation."""
        known = self._rpcs.get(operation.path)
        if known is None:
            known = self._rpcs[operation.path] = self.channel.unary_unary(
                operation.path,
                request_serializer=type(operation.request).SerializeToString,
                response_deserializer=operation.reply.FromString,
            )
        return known

    @property
    def waits(self) -> bool:
        """Whether a call waits for a connection. A daemon never met may not exist: that is said at once."""
        return self.reconnect and self.met

    def learn_limit(self, daemon: int) -> None:
        """Take the daemon's limit, 0 if it names none."""
        self.limit = min(self.max_message_bytes, daemon or self.max_message_bytes)

    def refuse_large(self, operation: Operation[Any], size: int) -> None:
        """Raise ClientError RESOURCE_EXHAUSTED for a message that would be refused, and again at each retry."""
        limit = self.max_message_bytes if self.limit is None else self.limit
        if size > limit:
            method = operation.path.rpartition("/")[2]
            raise ClientError(
                "RESOURCE_EXHAUSTED",
                "MESSAGE_TOO_LARGE",
                f"the request of {method} has {size} bytes, at most {limit} can be sent; send fewer samples at once, "
                "or raise max_message_bytes here and server.max_message_bytes there",
                {"bytes": str(size), "limit": str(limit)},
            )

    def unreachable(self, seconds: float, cause: ClientError) -> ClientError:
        """The error of a call that waited all its time for a connection."""
        return ClientError("UNAVAILABLE", "", f"no connection to {self.target} within {seconds:g} s: {cause.message}")


@dataclass(slots=True)
class Deadline:
    """When a call has to be over, on the monotonic clock."""

    seconds: float
    at: float

    @classmethod
    def of(cls, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(seconds, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds that remain, 0 or more."""
        return max(0.0, self.at - time.monotonic())


class Calls:
    """Blocking calls over one channel; safe to use from several threads."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def call(self, operation: Operation[T], timeout_seconds: float | None = None) -> T:
        """The result of an operation.

        Raises:
            ClientError: it failed for good, or for longer than its deadline.
        """
        deadline = Deadline.of(self.link.timeout_seconds if timeout_seconds is None else timeout_seconds)
        self.check_size(operation, deadline)
        for pause in pauses():
            waits = self.link.waits
            try:
                return self.once(operation, deadline.left, waits)
            except ClientError as error:
                if not again(error, waits, pause, deadline):
                    explained = self._explained(error, waits, deadline)
                    if explained is error:
                        raise
                    raise explained from error
                time.sleep(pause)
        raise AssertionError("pauses() does not end")

    def once(self, operation: Operation[T], timeout_seconds: float, waits: bool) -> T:
        """One attempt."""
        try:
            reply = self.link.rpc(operation)(operation.request, timeout=timeout_seconds, wait_for_ready=waits)
        except grpc.RpcError as error:
            raise cut_off(client_error(error)) from error
        self.link.met = True
        return operation.read(reply)

    def check_size(self, operation: Operation[Any], deadline: Deadline) -> None:
        """Raise ClientError for a request that the daemon would not take; ask it for its limit if need be."""
        size = operation.request.ByteSize()
        if size > SMALLEST_LIMIT and self.link.limit is None:
            try:
                self.link.learn_limit(self.call(operations.server_info(), deadline.left).max_message_bytes)
            except ClientError as error:
                if error.code != "UNIMPLEMENTED":
                    raise
                self.link.learn_limit(0)
        self.link.refuse_large(operation, size)

    def _explained(self, error: ClientError, waits: bool, deadline: Deadline) -> ClientError:
        """A deadline that passed while there was no connection is UNAVAILABLE; gRPC does not say which it was."""
        if not (waits and error.code == "DEADLINE_EXCEEDED" and not error.reason):
            return error
        try:
            self.once(operations.server_live(), PROBE_SECONDS, False)
        except ClientError as cause:
            return self.link.unreachable(deadline.seconds, cause) if cause.code == "UNAVAILABLE" else error
        return error


class AsyncCalls:
    """The same calls, awaited."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def call(self, operation: Operation[T], timeout_seconds: float | None = None) -> T:
        """The result of an operation; see `Calls.call`."""
        deadline = Deadline.of(self.link.timeout_seconds if timeout_seconds is None else timeout_seconds)
        await self.check_size(operation, deadline)
        for pause in pauses():
            waits = self.link.waits
            try:
                return await self.once(operation, deadline.left, waits)
            except ClientError as error:
                if not again(error, waits, pause, deadline):
                    explained = await self._explained(error, waits, deadline)
                    if explained is error:
                        raise
                    raise explained from error
                await asyncio.sleep(pause)
        raise AssertionError("pauses() does not end")

    async def once(self, operation: Operation[T], timeout_seconds: float, waits: bool) -> T:
        """One attempt."""
        try:
            reply = await self.link.rpc(operation)(operation.request, timeout=timeout_seconds, wait_for_ready=waits)
        except grpc.RpcError as error:
            raise cut_off(client_error(error)) from error
        self.link.met = True
        return operation.read(reply)

    async def check_size(self, operation: Operation[Any], deadline: Deadline) -> None:
        """See `Calls.check_size`."""
        size = operation.request.ByteSize()
        if size > SMALLEST_LIMIT and self.link.limit is None:
            try:
                self.link.learn_limit((await self.call(operations.server_info(), deadline.left)).max_message_bytes)
            except ClientError as error:
                if error.code != "UNIMPLEMENTED":
                    raise
                self.link.learn_limit(0)
        self.link.refuse_large(operation, size)

    async def _explained(self, error: ClientError, waits: bool, deadline: Deadline) -> ClientError:
        if not (waits and error.code == "DEADLINE_EXCEEDED" and not error.reason):
            return error
        try:
            await self.once(operations.server_live(), PROBE_SECONDS, False)
        except ClientError as cause:
            return self.link.unreachable(deadline.seconds, cause) if cause.code == "UNAVAILABLE" else error
        return error


def cut_off(error: ClientError) -> ClientError:
    """UNAVAILABLE where a call ended with its connection: the daemon may be back.

    That is CANCELLED, for nobody here cancelled, and what grpc.aio says of a message that was being written meanwhile.
    """
    cancelled = error.code == "CANCELLED" and error.message != CLOSED_HERE
    unwritten = error.code == "INTERNAL" and error.message == WRITE_FAILED
    if error.reason or not (cancelled or unwritten):
        return error
    return ClientError("UNAVAILABLE", "", f"the daemon stopped while the call was under way ({error.message})")


def pauses() -> Iterator[float]:
    """Seconds between attempts: doubling up to a second, each taken at random from its upper half."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, guards nothing
        pause = min(2 * pause, LAST_PAUSE_SECONDS)


def again(error: ClientError, waits: bool, pause: float, deadline: Deadline) -> bool:
    """Whether to send once more: a daemon that drains refused it unbegun, and the next one may be on its way."""
    return waits and error.code == "UNAVAILABLE" and error.reason == "DRAINING" and pause < deadline.left
