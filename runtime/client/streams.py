"""Streams of predictions, of both clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from acclimate.runtime.client import operations
from acclimate.runtime.client.errors import ClientError
from acclimate.runtime.client.line_aio import AsyncLine
from acclimate.runtime.client.line_sync import Line, Pending
from acclimate.runtime.client.results import Prediction
from acclimate.runtime.client.streaming import Begun, Refused, in_order, in_order_blocking
from acclimate.runtime.types import Scalar

if TYPE_CHECKING:
    from acclimate.runtime.client.aio import AsyncClient
    from acclimate.runtime.client.sync import Client


async def predict_stream_async(
    client: AsyncClient,
    model: str,
    arrays: AsyncIterable[ArrayLike] | Iterable[ArrayLike],
    parameters: Mapping[str, Scalar] | None,
    in_flight: int,
    refused: Refused | None,
    timeout_seconds: float | None,
) -> AsyncGenerator[Prediction, None]:
    """See `AsyncClient.predict_stream`."""
    line, asking = AsyncLine(client._calls), asyncio.Lock()

    async def one(array: ArrayLike) -> Prediction | ClientError:
        try:
            async with asking:
                # The first to come asks the daemon; those behind it stay behind it.
                info = await client.model(model, timeout_seconds=timeout_seconds)
            return await line.ask(operations.predict(info, array, parameters, None), timeout_seconds)
        except ClientError as error:
            if refused is None:
                raise
            return error

    place = 0
    try:
        async with aclosing(in_order(arrays, one, in_flight)) as answers:
            async for answer in answers:
                if isinstance(answer, Prediction):
                    yield answer
                elif refused is not None:
                    refused(place, answer)
                place += 1
    finally:
        await line.close()


def predict_stream(
    client: Client,
    model: str,
    arrays: Iterable[ArrayLike],
    parameters: Mapping[str, Scalar] | None,
    in_flight: int,
    refused: Refused | None,
    timeout_seconds: float | None,
) -> Iterator[Prediction]:
    """See `Client.predict_stream`."""
    line = Line(client._calls)

    def begin(array: ArrayLike) -> Begun[Prediction | ClientError]:
        try:
            info = client.model(model, timeout_seconds=timeout_seconds)
            pending = line.begin(operations.predict(info, array, parameters, None), timeout_seconds)
        except ClientError as error:
            return _Outcome(None, error, refused is None)
        return _Outcome(pending, None, refused is None)

    try:
        for place, answer in enumerate(in_order_blocking(arrays, begin, in_flight)):
            if isinstance(answer, Prediction):
                yield answer
            elif refused is not None:
                refused(place, answer)
    finally:
        line.close()


class _Outcome:
    """A request under way, or refused here: its answer, or its error, raised if that is to end the stream."""

    def __init__(self, pending: Pending[Prediction] | None, error: ClientError | None, raises: bool) -> None:
        self._pending = pending
        self._error = error
        self._raises = raises

    def done(self) -> bool:
        return self._pending is None or self._pending.done()

    def result(self) -> Prediction | ClientError:
        try:
            if self._pending is None:
                raise self._error or AssertionError("neither sent nor refused")
            return self._pending.result()
        except ClientError as error:
            if self._raises:
                raise
            return error
