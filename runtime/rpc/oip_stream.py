"""`ModelStreamInfer`: requests of one stream, several under way at a time, answered in their order.

Requests to models that answer in several parts are answered as the parts come.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.errors import AcclimateError, InvalidArgument
from acclimate.runtime.rpc import status
from acclimate.runtime.rpc.convert_oip import FINAL
from acclimate.runtime.rpc.limits import MessageLimits, check
from acclimate.runtime.rpc.open_streams import OpenStreams
from acclimate.runtime.rpc.stats import RpcStats
from acclimate.runtime.scheduler.admission import Admission, Pass
from acclimate.runtime.security.caller import current

EMPTY_FINAL = "triton_enable_empty_final_response"

Replies = AsyncGenerator[oip.ModelStreamInferResponse, None]
Infer = Callable[[oip.ModelInferRequest], Awaitable[oip.ModelInferResponse]]
Write = Callable[[oip.ModelInferRequest, Callable[[oip.ModelInferResponse], None]], Awaitable[oip.ModelInferResponse]]
"""Answers in parts: sends all but the last, and returns that."""
Writes = Callable[[str], Write | None]
"""What answers requests to a model in parts, or None."""

log = structlog.stdlib.get_logger("acclimate.rpc")


@dataclass(eq=False)
class Streams:
    """The rpc.

    Args:
        limit: requests of one stream under way, at most.
        stats: where they are counted.
        sizes: what every request of a stream has to keep within.
        admission: what says whether there is room for one more request; a stream waits until there is.
        open: where streams are known.
    """

    limit: int
    stats: RpcStats
    sizes: MessageLimits = field(default_factory=MessageLimits)
    admission: Admission | None = None
    open: OpenStreams = field(default_factory=OpenStreams)

    async def serve(self, requests: AsyncIterator[bytes], infer: Infer, writes: Writes = lambda _: None) -> Replies:
        """The replies to a stream of requests, as bytes from the wire; closing the iterator cancels what is under way.

        Raises:
            Unavailable: the daemon drains; every request that was read has been answered.
        """
        self.open.refuse_draining()
        stream = _Stream(requests, infer, self, writes)
        reader = self.open.reader(stream.read())
        self.stats.opened()
        try:
            while (told := await stream.order.get()) is not None:
                if isinstance(told, oip.ModelStreamInferResponse):
                    yield told
                    continue
                yield await told
                stream.slots.release()
        finally:
            self.stats.closed()
            await stream.cancel(reader)
        self.open.refuse_draining()


class _Stream:
    """One stream: what has been read and not yet answered."""

    def __init__(self, requests: AsyncIterator[bytes], infer: Infer, streams: Streams, writes: Writes) -> None:
        self._requests = requests
        self._writes = writes
        self._in_parts: set[asyncio.Task[oip.ModelStreamInferResponse]] = set()
        self._infer = infer
        self._stats = streams.stats
        self._sizes = streams.sizes
        self._admission = streams.admission
        self._tasks: set[asyncio.Task[oip.ModelStreamInferResponse]] = set()
        self._ends: dict[Hashable, asyncio.Task[oip.ModelStreamInferResponse]] = {}
        self.slots = asyncio.Semaphore(streams.limit)
        self.order: asyncio.Queue[asyncio.Task[oip.ModelStreamInferResponse] | oip.ModelStreamInferResponse | None] = (
            asyncio.Queue()
        )

    async def read(self) -> None:
        """Start every request as it comes, until the client has sent its last."""
        try:
            await self.slots.acquire()
            async for payload in self._requests:
                message = _decoded(payload)
                # A text waits for others of its model alone.
                waits = self._admission is not None and (message is None or self._writes(message.model_name) is None)
                held = await self._admission.wait(current().tenant) if waits and self._admission else None
                task = self._start(message)
                self._tasks.add(task)
                task.add_done_callback(partial(self._done, held))
                if task in self._in_parts:
                    # Its turn comes with its last part, after those that it has sent.
                    task.add_done_callback(self._last_part)
                else:
                    self.order.put_nowait(task)
                await self.slots.acquire()
        finally:
            await asyncio.gather(*self._in_parts, return_exceptions=True)
            self.order.put_nowait(None)

    def _done(self, held: Pass | None, task: asyncio.Task[oip.ModelStreamInferResponse]) -> None:
        self._tasks.discard(task)
        if held is not None:
            held.back()

    async def cancel(self, reader: asyncio.Task[None]) -> None:
        """Give up whatever is still under way."""
        tasks: list[asyncio.Task[Any]] = [reader, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, message: oip.ModelInferRequest | None) -> asyncio.Task[oip.ModelStreamInferResponse]:
        if message is None:
            return asyncio.create_task(self._answer(None, None))
        key = _sequence(message)
        after, write = self._ends.get(key), self._writes(message.model_name)
        task = asyncio.create_task(self._answer(message, after, write))
        if write is not None:
            self._in_parts.add(task)
        if key is not None and (after is not None or _flag(message, "sequence_end")):
            # What follows on a sequence that ends is of another one, which begins when this has ended.
            self._ends[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _last_part(self, done: asyncio.Task[oip.ModelStreamInferResponse]) -> None:
        self._in_parts.discard(done)
        self.order.put_nowait(done)

    def _send(self, part: oip.ModelInferResponse) -> None:
        self.order.put_nowait(oip.ModelStreamInferResponse(infer_response=part))

    def _forget(self, key: Hashable, done: asyncio.Task[oip.ModelStreamInferResponse]) -> None:
        if self._ends.get(key) is done:
            del self._ends[key]

    async def _answer(
        self,
        message: oip.ModelInferRequest | None,
        after: asyncio.Task[oip.ModelStreamInferResponse] | None,
        write: Write | None = None,
    ) -> oip.ModelStreamInferResponse:
        """One reply, come what may: a request's refusal is its own, and so is a defect."""
        code = "OK"
        try:
            if message is None:
                raise InvalidArgument(
                    "MESSAGE_MALFORMED", "the request is no ModelInferRequest; compile your stubs again"
                )
            check(message, self._sizes)
            if after is not None:
                with suppress(Exception):
                    await asyncio.shield(after)
            answer = await (self._infer(message) if write is None else write(message, self._send))
            reply = oip.ModelStreamInferResponse(infer_response=answer)
            if _flag(message, EMPTY_FINAL):
                reply.infer_response.parameters[FINAL].bool_param = True
            return reply
        except AcclimateError as error:
            code = error.code.value
            return _refused(message, code, error.reason, status.refusal(error).details, error.retry_after_seconds)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception:
            code, correlation = "INTERNAL", uuid.uuid4().hex
            log.exception("request of a stream failed", correlation_id=correlation)
            return _refused(message, code, "INTERNAL", status.internal(correlation).details)
        finally:
            self._stats.streamed(code)


def _decoded(payload: bytes) -> oip.ModelInferRequest | None:
    """A request, or None for bytes that are none."""
    try:
        return oip.ModelInferRequest.FromString(payload)
    except DecodeError:
        return None


def _sequence(message: oip.ModelInferRequest) -> Hashable:
    """Model and id of the sequence that a request belongs to, or None."""
    if "sequence_id" not in message.parameters:
        return None
    value = message.parameters["sequence_id"]
    choice = value.WhichOneof("parameter_choice")
    return None if choice is None else (message.model_name, str(getattr(value, choice)))


def _flag(message: oip.ModelInferRequest, name: str) -> bool:
    # Looked for first, since reading a map of messages puts in what is not there.
    return name in message.parameters and message.parameters[name].bool_param


def _refused(
    message: oip.ModelInferRequest | None, code: str, reason: str, text: str, retry_after: float | None = None
) -> oip.ModelStreamInferResponse:
    """As Triton answers a refused request: the sentence, and the request's id, for the client to know which it was."""
    reply = oip.ModelStreamInferResponse(error_message=text)
    if retry_after is not None:
        reply.infer_response.parameters["acclimate_retry_after_ms"].int64_param = math.ceil(retry_after * 1e3)
    reply.infer_response.parameters["acclimate_code"].string_param = code
    reply.infer_response.parameters["acclimate_reason"].string_param = reason
    if message is not None:
        reply.infer_response.id = message.id
        reply.infer_response.model_name = message.model_name
    return reply
