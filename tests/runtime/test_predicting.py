"""The prediction queue: its bound, deadlines, cancellation, batches, an engine that fails, and the drain."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import DeadlineExceeded, NotFound, ResourceExhausted, Unavailable
from acclimate.runtime.service import Service
from acclimate.runtime.types import InferReply
from tests.polling import until_async
from tests.runtime.hooked import Gate, Hooked
from tests.runtime.serving import MODEL, config, differences, drifted, opened, predict, serving, whole


async def held(service: Service, gate: Gate) -> asyncio.Task[InferReply]:
    """A stateless request that stands before the gate, so that what comes next has to queue."""
    first = asyncio.create_task(predict(service, drifted(0)))
    await until_async(gate.reached.is_set, "the first request to reach the engine")
    return first


def queued(service: Service) -> int:
    return service.snapshot().queue_depth


def test_requests_of_many_sessions_share_a_batch_and_get_their_own_rows() -> None:
    async def scenario() -> None:
        gate, batches = Gate(), []
        engine = Hooked(reference_engine(), frozen=lambda inputs: (batches.append(len(inputs)), gate(inputs)))
        async with serving(config("background"), engine) as service:
            first = await held(service, gate)
            names = [f"s{i}" for i in range(5)]
            for name in names:
                await opened(service, name, "source")
            tasks = [asyncio.create_task(predict(service, drifted(9 + i, i + 1), n)) for i, n in enumerate(names)]
            await until_async(lambda: queued(service) == 5, "five requests to queue")
            gate.open()
            replies = await asyncio.gather(*tasks)
            await first
        assert batches == [1, 15]
        for i, reply in enumerate(replies):
            np.testing.assert_array_equal(reply.outputs["logits"], reference_engine().frozen(drifted(9 + i, i + 1)))

    asyncio.run(scenario())


def test_a_full_queue_refuses_and_changes_nothing() -> None:
    async def scenario() -> None:
        gate = Gate()
        settings = config("background", scheduler={"max_queue": 2})
        async with serving(settings, Hooked(reference_engine(), frozen=gate)) as service:
            await opened(service, "s", "tent")
            before = whole(service, "s")
            first = await held(service, gate)
            waiting = [asyncio.create_task(predict(service, drifted(1))) for _ in range(2)]
            await until_async(lambda: queued(service) == 2, "the queue to fill")
            for options in ({}, {"sequence_start": True}):
                with pytest.raises(ResourceExhausted) as refused:
                    await predict(service, drifted(2), "s", **options)
                assert refused.value.retry_after_seconds == pytest.approx(0.1)
            with pytest.raises(ResourceExhausted):
                await predict(service, drifted(2), "new", sequence_start=True)
            with pytest.raises(NotFound):
                await service.get_session(MODEL, "new")
            assert not differences(before, whole(service, "s"))
            gate.open()
            await asyncio.gather(first, *waiting)
            await predict(service, drifted(2), "s")

    asyncio.run(scenario())


def test_a_request_past_its_deadline_is_never_computed() -> None:
    async def scenario() -> None:
        clock, gate, computed = ManualClock(100.0), Gate(), []
        engine = Hooked(reference_engine(), frozen=lambda inputs: (computed.append(len(inputs)), gate(inputs)))
        async with serving(config("background"), engine, clock) as service:
            await opened(service, "s", "tent")
            before = whole(service, "s")
            with pytest.raises(DeadlineExceeded):
                await predict(service, drifted(1, 3), "s", deadline=100.0, sequence_start=True)
            assert not differences(before, whole(service, "s"))
            first = await held(service, gate)
            late = asyncio.create_task(predict(service, drifted(1, 3), "s", deadline=105.0))
            never = asyncio.create_task(predict(service, drifted(1, 3), "n", deadline=105.0, sequence_start=True))
            await until_async(lambda: queued(service) == 2, "both to queue")
            clock.advance(6.0)
            gate.open()
            await first
            for task in (late, never):
                with pytest.raises(DeadlineExceeded):
                    await task
            assert computed == [1]
            assert not differences(before, whole(service, "s"))
            with pytest.raises(NotFound):
                await service.get_session(MODEL, "n")
            assert service.snapshot().models[0].requests["DEADLINE_EXCEEDED"] == 3

    asyncio.run(scenario())


def test_a_request_whose_client_left_is_skipped() -> None:
    async def scenario() -> None:
        gate, computed = Gate(), []
        engine = Hooked(reference_engine(), frozen=lambda inputs: (computed.append(len(inputs)), gate(inputs)))
        async with serving(config("background"), engine) as service:
            await opened(service, "s", "tent")
            before = whole(service, "s")
            first = await held(service, gate)
            gone = asyncio.create_task(predict(service, drifted(1, 3), "s"))
            stays = asyncio.create_task(predict(service, drifted(1, 5)))
            await until_async(lambda: queued(service) == 2, "both to queue")
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            gate.open()
            await asyncio.gather(first, stays)
            assert computed == [1, 5]
            assert not differences(before, whole(service, "s"))
            assert service.snapshot().models[0].requests["CANCELLED"] == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["background", "synchronous"])
def test_an_engine_that_fails_costs_its_own_batch_only(mode: str) -> None:
    async def scenario() -> None:
        def break_on_seven(inputs: np.ndarray) -> None:
            if len(inputs) == 7:
                raise RuntimeError("no memory")

        async with serving(config(mode), Hooked(reference_engine(), frozen=break_on_seven)) as service:
            await opened(service, "s", "tent")
            before = whole(service, "s")
            for _ in range(2):
                with pytest.raises(RuntimeError, match="no memory"):
                    await predict(service, drifted(1, 7), "s")
                assert not differences(before, whole(service, "s"))
                await predict(service, drifted(1, 6))
            assert service.snapshot().models[0].requests == {"INTERNAL": 2, "OK": 2}

    asyncio.run(scenario())


@pytest.mark.parametrize("max_delay_ms", [0.0, 3_600_000.0])
def test_a_drain_answers_what_is_queued_and_refuses_what_comes(max_delay_ms: float) -> None:
    async def scenario() -> None:
        gate = Gate()
        engine = Hooked(reference_engine(), frozen=gate)
        settings = config("background", scheduler={"max_delay_ms": max_delay_ms, "max_batch": 4})
        async with serving(settings, engine) as service:
            # Four rows fill a batch, so that even with a delay it starts at once.
            first = asyncio.create_task(predict(service, drifted(0, 4)))
            await until_async(gate.reached.is_set, "the first request to reach the engine")
            waiting = [asyncio.create_task(predict(service, drifted(i))) for i in range(3)]
            await until_async(lambda: queued(service) == 3, "three requests to queue")
            drained = asyncio.create_task(service.drain(30.0))
            await until_async(lambda: not service.ready, "the drain to begin")
            with pytest.raises(Unavailable):
                await predict(service, drifted(5))
            gate.open()
            assert len(await asyncio.gather(first, *waiting)) == 4
            await drained
            assert engine.closed == 1

    asyncio.run(scenario())


def test_a_drain_out_of_time_tells_those_who_wait() -> None:
    async def scenario() -> None:
        gate = Gate()
        async with serving(config("background"), Hooked(reference_engine(), frozen=gate)) as service:
            tasks = [await held(service, gate), asyncio.create_task(predict(service, drifted(1)))]
            await until_async(lambda: queued(service) == 1, "the second request to queue")
            await service.drain(0.0)
            for task in tasks:
                with pytest.raises(Unavailable):
                    await task
            gate.open()

    asyncio.run(scenario())
