"""Streams of predictions: in order, bounded, prompt, and with nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future

import numpy as np
import pytest

from acclimate.runtime.client import AsyncClient, Client, ClientError
from acclimate.runtime.client.streaming import in_order, in_order_blocking
from tests.runtime.rpc.loopback import MODEL, Loopback, engine, samples

COUNT = 40


def test_answers_come_in_the_order_of_the_samples(loopback: Loopback) -> None:
    async def camera() -> AsyncIterator[np.ndarray]:
        for seed in range(COUNT):
            await asyncio.sleep(0)
            yield samples(2, seed)

    async def main() -> None:
        async with AsyncClient(loopback.target) as client:
            answers = [a async for a in client.predict_stream(MODEL, camera(), in_flight=5)]
            for seed, answer in enumerate(answers):
                np.testing.assert_allclose(answer.logits, engine().frozen(samples(2, seed)), rtol=1e-5, atol=1e-6)
            session = await client.create_session(MODEL, recipe="norm", recipe_parameters={"batch_rows": 16})
            inputs = [samples(2, seed) for seed in range(COUNT)]
            seen = [answer.parameters["acclimate_session"] async for answer in session.predict_stream(inputs)]
            assert seen == [session.id] * COUNT
            assert (await session.get()).samples == 2 * COUNT
            await session.delete()

    asyncio.run(main())


def test_the_blocking_stream_does_the_same(loopback: Loopback) -> None:
    with Client(loopback.target) as client:
        answers = list(client.predict_stream(MODEL, (samples(2, seed) for seed in range(COUNT)), in_flight=3))
        for seed, answer in enumerate(answers):
            np.testing.assert_allclose(answer.logits, engine().frozen(samples(2, seed)), rtol=1e-5, atol=1e-6)
        with client.create_session(MODEL) as session:
            assert len(list(session.predict_stream([samples(1)] * 3, adapt=False))) == 3
            assert session.get().samples == 3


def test_a_sample_that_is_refused_ends_the_stream_at_its_place(loopback: Loopback) -> None:
    inputs = [samples(1), samples(1), np.zeros((1, 3), np.float32), samples(1)]

    async def main() -> int:
        seen = 0
        async with AsyncClient(loopback.target) as client:
            with pytest.raises(ClientError, match="has shape"):
                async for _ in client.predict_stream(MODEL, inputs, in_flight=2):
                    seen += 1
        return seen

    assert asyncio.run(main()) == 2
    with Client(loopback.target) as client, pytest.raises(ClientError, match="has shape"):
        list(client.predict_stream(MODEL, inputs))


def test_never_more_under_way_than_was_said_and_none_ahead_of_the_reader() -> None:
    async def main() -> tuple[int, int]:
        under_way, most, taken, full = 0, 0, 0, asyncio.Event()

        async def source() -> AsyncIterator[int]:
            nonlocal taken
            for taken in range(1, 31):
                yield taken

        async def work(item: int) -> int:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            if under_way == 4:
                full.set()
            await full.wait()
            for _ in range(item % 3):
                await asyncio.sleep(0)
            under_way -= 1
            return item

        results = in_order(source(), work, 4)
        first = [await anext(results) for _ in range(3)]
        for _ in range(50):
            await asyncio.sleep(0)
        ahead = taken
        assert first + [item async for item in results] == list(range(1, 31))
        return most, ahead

    most, ahead = asyncio.run(main())
    assert most == 4
    assert ahead <= 3 + 4, "a reader that stops, stops the source"


def test_an_answer_does_not_wait_for_the_next_sample() -> None:
    async def main() -> int:
        more = asyncio.Event()

        async def source() -> AsyncIterator[int]:
            yield 1
            await more.wait()
            yield 2

        async def work(item: int) -> int:
            return item

        results = in_order(source(), work, 8)
        first = await asyncio.wait_for(anext(results), 30)
        more.set()
        assert [item async for item in results] == [2]
        return first

    assert asyncio.run(main()) == 1


def test_leaving_a_stream_cancels_what_is_under_way_and_a_broken_source_is_told() -> None:
    async def main() -> None:
        cancelled = []

        async def work(item: int) -> int:
            try:
                if item:
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(item)
                raise
            return item

        results = in_order(range(10), work, 3)
        assert await anext(results) == 0
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await results.aclose()  # type: ignore[attr-defined]
        assert cancelled
        assert len(asyncio.all_tasks()) == 1

        async def broken() -> AsyncIterator[int]:
            yield 0
            raise OSError("the camera is gone")

        with pytest.raises(OSError, match="the camera is gone"):
            _ = [item async for item in in_order(broken(), work, 3)]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_leaving_a_blocking_stream_ends_its_thread(loopback: Loopback) -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "stream"]

    with Client(loopback.target) as client:
        answers = client.predict_stream(MODEL, (samples(1, seed) for seed in range(COUNT)), in_flight=3)
        assert next(answers).labels.shape == (1,)
        assert len(threads()) == 1
        answers.close()  # type: ignore[attr-defined]
        assert not threads()
        list(client.predict_stream(MODEL, [samples(1)]))
        assert not threads()
    for call in (in_order_blocking([1], Future, 0), in_order([1], None, -1)):  # type: ignore[arg-type, type-var]
        with pytest.raises(ValueError, match="at least one request"):
            if isinstance(call, Iterator):
                next(call)
            else:
                asyncio.run(anext(call))
