"""The asyncio side of `line.py`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from acclimate.runtime.client import operations
from acclimate.runtime.client.calling import ATTEMPT_SECONDS, AWAY, AsyncCalls, Deadline, cut_off, pauses
from acclimate.runtime.client.errors import ClientError, client_error
from acclimate.runtime.client.line import Wire, ended, late, passing
from acclimate.runtime.client.operations import Operation

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Asked:
    request: Any
    answer: asyncio.Future[Any]
    sent: bool = field(default=False)


class AsyncLine:
    """One stream at a time, opened with the first request; `ask` may be called many times at once."""

    def __init__(self, calls: AsyncCalls, wire: Wire) -> None:
        self._calls, self._wire = calls, wire
        self._asked: dict[str, _Asked] = {}
        self._sending = asyncio.Lock()
        self._call: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._broke: ClientError | None = None
        self._closed = False

    async def ask(self, operation: Operation[T], timeout_seconds: float | None) -> T:
        """The answer to an operation; requests go out in the order of the calls.

        Raises:
            ClientError: it was refused for good, or not answered in time.
        """
        deadline = Deadline.of(self._calls.link.timeout_seconds if timeout_seconds is None else timeout_seconds)
        for pause in pauses():
            try:
                return operation.read(await self._answered(operation, deadline))
            except ClientError as error:
                wait = passing(error, pause, deadline)
                if wait is None:
                    raise
                await asyncio.sleep(wait)
        raise AssertionError("pauses() does not end")

    async def close(self) -> None:
        """End the stream; whoever waits is left to its deadline."""
        self._closed = True
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._call is not None:
            self._call.cancel()

    async def _answered(self, operation: Operation[Any], deadline: Deadline) -> Any:
        self._wire.timed(operation.request, deadline)
        key = self._wire.asked(operation.request)
        asked = _Asked(operation.request, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(deadline.left):
                async with self._sending:
                    await self._calls.check_size(operation, deadline)
                    self._asked[key] = asked
                    await self._send(asked)
                return await asked.answer
        except TimeoutError:
            broke = self._broke
            raise late(deadline) if broke is None else self._calls.link.unreachable(deadline.seconds, broke) from broke
        finally:
            self._asked.pop(key, None)

    async def _send(self, asked: _Asked) -> None:
        if self._call is None and self._broke is None:
            self._call = self._wire.stream(self._calls.link.channel)()
            self._reader = asyncio.create_task(self._read(), name="stream")
        if self._call is None:
            # Whoever takes the stream up again sends what was asked meanwhile, too.
            return
        message = self._wire.message(asked.request, asked.sent)
        asked.sent = True
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The reader hears of it as well, and sees to it.
            return

    async def _read(self) -> None:
        while True:
            try:
                reply = await self._call.read()
                if reply is not grpc.aio.EOF:
                    self._told(reply)
                    continue
                broke = ended()
            except grpc.RpcError as error:
                broke = cut_off(client_error(error))
            except asyncio.CancelledError:
                # The call's own cancellation looks like the task's.
                if self._closed:
                    raise
                broke = ended()
            if not await self._resumed(broke):
                return

    def _told(self, reply: Any) -> None:
        self._calls.link.met = True
        asked = self._asked.get(self._wire.told(reply))
        if asked is None or asked.answer.done():
            return
        error = self._wire.refusal(reply)
        if error is None:
            asked.answer.set_result(self._wire.answer(reply))
        else:
            asked.answer.set_exception(error)

    async def _resumed(self, broke: ClientError) -> bool:
        """Whether the stream was taken up again, and what waits for an answer sent again; else nothing waits."""
        self._call, self._broke = None, broke
        for pause in pauses():
            hopeless = broke.code != "UNAVAILABLE" or not self._calls.link.waits
            if hopeless or not self._asked:
                for asked in self._asked.values():
                    if not asked.answer.done():
                        asked.answer.set_exception(broke)
                self._broke = None
                return False
            try:
                if await self._calls.once(operations.server_ready(), ATTEMPT_SECONDS, True):
                    break
            except ClientError as error:
                if error.code not in AWAY:
                    broke = error
            await asyncio.sleep(pause)
        async with self._sending:
            self._call, self._broke = self._wire.stream(self._calls.link.channel)(), None
            for asked in tuple(self._asked.values()):
                if not asked.answer.done():
                    await self._send(asked)
        return True
