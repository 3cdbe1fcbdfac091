"""Streams of predictions and of new sessions, of both clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from numpy.typing import ArrayLike

from acclimate.runtime.client import operations
from acclimate.runtime.client.errors import ClientError
from acclimate.runtime.client.line import CREATE, INFER
from acclimate.runtime.client.line_aio import AsyncLine
from acclimate.runtime.client.line_sync import Line, Pending
from acclimate.runtime.client.operations import Operation
from acclimate.runtime.client.results import Prediction
from acclimate.runtime.client.streaming import Begun, Refused, in_order, in_order_blocking
from acclimate.runtime.types import CreateSession, Scalar, SessionView

if TYPE_CHECKING:
    from acclimate.runtime.client.aio import AsyncClient
    from acclimate.runtime.client.sync import Client

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Terms:
    """How a stream is run: requests under way at most, who is told of refusals, seconds until each is answered."""

    in_flight: int
    refused: Refused | None
    timeout_seconds: float | None


def predict_stream_async(
    client: AsyncClient,
    model: str,
    arrays: AsyncIterable[ArrayLike] | Iterable[ArrayLike],
    parameters: Mapping[str, Scalar] | None,
    terms: Terms,
) -> AsyncGenerator[Prediction, None]:
    """See `AsyncClient.predict_stream`."""

    async def operation(array: ArrayLike) -> Operation[Prediction]:
        info = await client.model(model, timeout_seconds=terms.timeout_seconds)
        return operations.predict(info, array, parameters, None)

    return _answers_async(AsyncLine(client._calls, INFER), arrays, operation, terms)


def predict_stream(
    client: Client, model: str, arrays: Iterable[ArrayLike], parameters: Mapping[str, Scalar] | None, terms: Terms
) -> Iterator[Prediction]:
    """See `Client.predict_stream`."""

    def operation(array: ArrayLike) -> Operation[Prediction]:
        info = client.model(model, timeout_seconds=terms.timeout_seconds)
        return operations.predict(info, array, parameters, None)

    return _answers(Line(client._calls, INFER), arrays, operation, terms)


def create_stream_async(
    client: AsyncClient, wanted: AsyncIterable[CreateSession] | Iterable[CreateSession], terms: Terms
) -> AsyncGenerator[SessionView, None]:
    """See `AsyncClient.create_sessions`."""

    async def operation(one: CreateSession) -> Operation[SessionView]:
        return operations.creation(one)

    return _answers_async(AsyncLine(client._calls, CREATE), wanted, operation, terms)


def create_stream(client: Client, wanted: Iterable[CreateSession], terms: Terms) -> Iterator[SessionView]:
    """See `Client.create_sessions`."""
    return _answers(Line(client._calls, CREATE), wanted, operations.creation, terms)


async def _answers_async(
    line: AsyncLine,
    items: AsyncIterable[T] | Iterable[T],
    operation: Callable[[T], Awaitable[Operation[R]]],
    terms: Terms,
) -> AsyncGenerator[R, None]:
    refused, asking = terms.refused, asyncio.Lock()

    async def one(item: T) -> _Answer[R] | ClientError:
        try:
            async with asking:
                # The first to come may ask the daemon; those behind it stay behind it.
                made = await operation(item)
            return _Answer(await line.ask(made, terms.timeout_seconds))
        except ClientError as error:
            if refused is None:
                raise
            return error

    place = 0
    try:
        async with aclosing(in_order(items, one, terms.in_flight)) as answers:
            async for answer in answers:
                if isinstance(answer, _Answer):
                    yield answer.value
                elif refused is not None:
                    refused(place, answer)
                place += 1
    finally:
        await line.close()


def _answers(line: Line, items: Iterable[T], operation: Callable[[T], Operation[R]], terms: Terms) -> Iterator[R]:
    refused = terms.refused

    def begin(item: T) -> Begun[_Answer[R] | ClientError]:
        try:
            pending = line.begin(operation(item), terms.timeout_seconds)
        except ClientError as error:
            return _Outcome(None, error, refused is None)
        return _Outcome(pending, None, refused is None)

    try:
        for place, answer in enumerate(in_order_blocking(items, begin, terms.in_flight)):
            if isinstance(answer, _Answer):
                yield answer.value
            elif refused is not None:
                refused(place, answer)
    finally:
        line.close()


@dataclass(frozen=True, slots=True)
class _Answer(Generic[R]):
    value: R


class _Outcome(Generic[R]):
    """A request under way, or refused here: its answer, or its error, raised if that is to end the stream."""

    def __init__(self, pending: Pending[R] | None, error: ClientError | None, raises: bool) -> None:
        self._pending = pending
        self._error = error
        self._raises = raises

    def done(self) -> bool:
        return self._pending is None or self._pending.done()

    def result(self) -> _Answer[R] | ClientError:
        try:
            if self._pending is None:
                raise self._error or AssertionError("neither sent nor refused")
            return _Answer(self._pending.result())
        except ClientError as error:
            if self._raises:
                raise
            return error
