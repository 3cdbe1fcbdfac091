"""`CreateSessions`: sessions opened over one stream, begun in the order of its messages and answered in it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import structlog
from google.protobuf.message import DecodeError

from acclimate.runtime.errors import AcclimateError, InvalidArgument
from acclimate.runtime.rpc import status
from acclimate.runtime.rpc.limits import MessageLimits, check
from acclimate.runtime.rpc.open_streams import OpenStreams
from acclimate.v1 import session_service_pb2 as pb

# Messages under way at once: enough that a store is asked about several together, few enough that large seeds cannot
# fill the memory. The client waits with the rest, through HTTP/2's flow control.
UNDER_WAY = 16

Begun: TypeAlias = "asyncio.Queue[asyncio.Task[pb.CreateSessionsResponse] | None]"
Create: TypeAlias = Callable[[pb.CreateSessionRequest], Awaitable[pb.CreateSessionResponse]]

log = structlog.stdlib.get_logger("acclimate.rpc")


@dataclass(eq=False)
class Creations:
    """The rpc. Touched on the event loop's thread only.

    Args:
        sizes: what every message has to keep within.
        streams: where they are known.
    """

    sizes: MessageLimits = field(default_factory=MessageLimits)
    streams: OpenStreams = field(default_factory=OpenStreams)

    async def serve(
        self, messages: AsyncIterator[bytes], create: Create
    ) -> AsyncGenerator[pb.CreateSessionsResponse, None]:
        """The answers to a stream of messages, as bytes from the wire, in their order.

        Raises:
            Unavailable: the daemon drains; every message that was read has been answered.
        """
        self.streams.refuse_draining()
        begun: Begun = asyncio.Queue()
        room = asyncio.Semaphore(UNDER_WAY)

        async def read() -> None:
            try:
                await room.acquire()
                async for message in messages:
                    begun.put_nowait(asyncio.create_task(self._answer(message, create)))
                    await room.acquire()
            finally:
                begun.put_nowait(None)

        reader = self.streams.reader(read())
        task: asyncio.Task[pb.CreateSessionsResponse] | None = None
        try:
            while (task := await begun.get()) is not None:
                yield await task
                room.release()
        finally:
            await _given_up([reader, *([task] if task else [])], begun)
        self.streams.refuse_draining()
        # What ended the reading, such as a token that was revoked, ends the rpc.
        reader.result()

    async def _answer(self, message: bytes, create: Create) -> pb.CreateSessionsResponse:
        """The session or its refusal, come what may: a refusal is a message's own, and so is a defect."""
        request = pb.CreateSessionsRequest()
        try:
            try:
                request.ParseFromString(message)
            except DecodeError as error:
                raise InvalidArgument(
                    "MESSAGE_MALFORMED", "the message is no CreateSessionsRequest; compile your stubs again"
                ) from error
            check(request, self.sizes)
            return pb.CreateSessionsResponse(tag=request.tag, session=(await create(request.session)).session)
        except AcclimateError as error:
            return _refused(request, status.refusal(error))
        except Exception:
            correlation = uuid.uuid4().hex
            log.exception("a session of a stream was not opened", correlation_id=correlation)
            return _refused(request, status.internal(correlation))


async def _given_up(tasks: list[asyncio.Task[Any]], begun: Begun) -> None:
    """Cancel what is still under way, of a stream that has ended or was left."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    left = [task for task in (begun.get_nowait() for _ in range(begun.qsize())) if task is not None]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def _refused(request: pb.CreateSessionsRequest, refusal: status.Refusal) -> pb.CreateSessionsResponse:
    return pb.CreateSessionsResponse(tag=request.tag, refusal=pb.Refusal.FromString(refusal.packed))
