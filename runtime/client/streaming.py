"""Many requests at once with results in the order of the inputs, and never more under way than was said."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from acclimate.runtime.client.errors import ClientError

T = TypeVar("T")
R = TypeVar("R")
Out = TypeVar("Out", covariant=True)

DEFAULT_IN_FLIGHT = 8
# Sessions are opened in less time than a message takes both ways.
CREATIONS_IN_FLIGHT = 64
Refused = Callable[[int, ClientError], None]
"""Told of a request of a stream that was refused, by its place, from 0; the stream goes on without its answer."""


class Begun(Protocol[Out]):
    """Something under way."""

    def done(self) -> bool:
        """Whether `result` is there."""

    def result(self) -> Out:
        """What came of it, once it has; or raises."""


async def in_order(
    items: AsyncIterable[T] | Iterable[T], work: Callable[[T], Awaitable[R]], in_flight: int
) -> AsyncGenerator[R, None]:
    """`work` of every item, begun in their order, its results in that order, each as soon as it is there.

    An item is taken from `items` once there is room for it, so a slow reader slows the source down. What `work` or
    the source raises is raised at its place; what was begun after it is cancelled, as it is when the reader leaves.
    """
    room = asyncio.Semaphore(_checked(in_flight))
    begun: asyncio.Queue[asyncio.Task[R] | None] = asyncio.Queue()

    async def feed() -> None:
        source = aiter(items) if isinstance(items, AsyncIterable) else _awaited(items)
        try:
            while True:
                await room.acquire()
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
                begun.put_nowait(asyncio.ensure_future(work(item)))
        finally:
            begun.put_nowait(None)

    feeding = asyncio.create_task(feed())
    task: asyncio.Task[R] | None = None
    try:
        while (task := await begun.get()) is not None:
            yield await task
            room.release()
        await feeding
    finally:
        feeding.cancel()
        left = [feeding, *([task] if task else []), *(t for t in _drained(begun) if t is not None)]
        for unfinished in left:
            unfinished.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def in_order_blocking(items: Iterable[T], begin: Callable[[T], Begun[R]], in_flight: int) -> Iterator[R]:
    """The same for threads: `begin` sends an item and returns at once, `result` waits for what comes of it."""
    _checked(in_flight)
    waiting: deque[Begun[R]] = deque()
    for item in items:
        waiting.append(begin(item))
        while waiting and (len(waiting) >= in_flight or waiting[0].done()):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


async def _awaited(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


def _drained(queue: asyncio.Queue[T]) -> Iterator[T]:
    while not queue.empty():
        yield queue.get_nowait()


def _checked(in_flight: int) -> int:
    if in_flight < 1:
        raise ValueError(f"in_flight is {in_flight}; at least one request has to be under way")
    return in_flight
