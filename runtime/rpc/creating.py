"""`CreateSessions`: sessions opened one after another over one stream, each message answered in its turn."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog
from google.protobuf.message import DecodeError

from acclimate.runtime.errors import AcclimateError, InvalidArgument, Unavailable
from acclimate.runtime.rpc import status
from acclimate.runtime.rpc.limits import MessageLimits, check
from acclimate.v1 import session_service_pb2 as pb

# Messages read before their turn: enough that reading, opening and answering overlap, few enough that large seeds
# cannot fill the memory. The client waits with the rest, through HTTP/2's flow control.
AHEAD = 8

Create: TypeAlias = Callable[[pb.CreateSessionRequest], Awaitable[pb.CreateSessionResponse]]

log = structlog.stdlib.get_logger("acclimate.rpc")


@dataclass(eq=False)
class Creations:
    """The open streams. Touched on the event loop's thread only.

    Args:
        sizes: what every message has to keep within.
    """

    sizes: MessageLimits = field(default_factory=MessageLimits)
    _readers: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _draining: bool = field(default=False, init=False)

    def drain(self) -> None:
        """Read no more; what was read is answered, then the streams end with UNAVAILABLE."""
        self._draining = True
        for reader in self._readers:
            reader.cancel()

    async def serve(
        self, messages: AsyncIterator[bytes], create: Create
    ) -> AsyncGenerator[pb.CreateSessionsResponse, None]:
        """The answers to a stream of messages, as bytes from the wire, in their order.

        Raises:
            Unavailable: the daemon drains; every message that was read has been answered.
        """
        self._refuse_draining()
        read: asyncio.Queue[bytes | None] = asyncio.Queue()
        room = asyncio.Semaphore(AHEAD)
        reader = asyncio.create_task(_read(messages, read, room))
        self._readers.add(reader)
        try:
            while (message := await read.get()) is not None:
                room.release()
                yield await self._answer(message, create)
        finally:
            self._readers.discard(reader)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        self._refuse_draining()
        # What ended the reading, such as a token that was revoked, ends the rpc.
        reader.result()

    def _refuse_draining(self) -> None:
        if self._draining:
            raise Unavailable("DRAINING", "the daemon is draining; open the stream on another one")

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


async def _read(messages: AsyncIterator[bytes], read: asyncio.Queue[bytes | None], room: asyncio.Semaphore) -> None:
    try:
        await room.acquire()
        async for message in messages:
            read.put_nowait(message)
            await room.acquire()
    finally:
        read.put_nowait(None)


def _refused(request: pb.CreateSessionsRequest, refusal: status.Refusal) -> pb.CreateSessionsResponse:
    return pb.CreateSessionsResponse(tag=request.tag, refusal=pb.Refusal.FromString(refusal.packed))
