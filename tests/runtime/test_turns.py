"""Tenants at one engine: whose turn it is, and what becomes of those who waited when too much comes."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import ResourceExhausted
from acclimate.runtime.security.caller import Caller, Role, enter
from acclimate.runtime.service import Service
from acclimate.runtime.types import InferReply
from tests.polling import until_async
from tests.runtime.hooked import Gate, Hooked
from tests.runtime.serving import config, drifted, predict, serving


async def as_tenant(name: str, service: Service, rows: int, priority: int = 2) -> InferReply:
    enter(Caller(name, Role.TENANT))
    return await predict(service, drifted(rows, rows), priority=priority)


async def queued(service: Service, count: int) -> None:
    await until_async(lambda: service.snapshot().queue_depth == count, f"{count} requests to queue")


def order_of(requests: list[tuple[str, int, int]], weights: dict[str, float]) -> list[int]:
    """Rows of each batch, for requests of a tenant, so many rows and a priority that queue behind a closed gate."""

    async def scenario() -> list[int]:
        gate, batches = Gate(), []
        engine = Hooked(reference_engine(), frozen=lambda inputs: (batches.append(len(inputs)), gate(inputs)))
        settings = config(
            "background",
            scheduler={"max_batch": 8},
            tenants={name: {"weight": weight} for name, weight in weights.items()},
        )
        async with serving(settings, engine) as service:
            first = asyncio.create_task(predict(service, drifted(0)))
            await until_async(gate.reached.is_set, "the first request to reach the engine")
            tasks = []
            for number, (name, rows, priority) in enumerate(requests, start=1):
                tasks.append(asyncio.create_task(as_tenant(name, service, rows, priority)))
                await queued(service, number)
            gate.open()
            await asyncio.gather(first, *tasks)
        return batches[1:]

    return asyncio.run(scenario())


def test_one_request_is_in_the_next_batch_however_many_of_another_tenant_wait() -> None:
    # Five rows and three do not fit into eight with anything else, so that sizes tell whose batch it was.
    assert order_of([("loud", 5, 2)] * 6 + [("quiet", 3, 2)], {})[:2] in ([5, 8], [8, 5])
    assert order_of([("loud", 7, 2)] * 6 + [("quiet", 3, 2)], {})[:2] == [7, 3]


def test_a_tenant_of_three_times_the_weight_is_served_three_times_as_often() -> None:
    batches = order_of([("heavy", 7, 2)] * 12 + [("light", 5, 2)] * 12, {"heavy": 3.0})
    assert len(batches) == 24
    assert batches[:12].count(7) == pytest.approx(8, abs=1), "21 rows to 7, of batches of 7 and of 5"


def test_a_priority_is_no_way_past_another_tenant() -> None:
    batches = order_of([("calm", 7, 2)] * 3 + [("pushy", 5, 1)] * 3, {})
    assert batches[:2] == [7, 5]
    assert sorted(batches[2:4]) == [5, 7]


def test_what_waited_from_before_is_given_up_once_too_much_comes() -> None:
    async def scenario() -> None:
        clock, gate = ManualClock(100.0), Gate()
        engine = Hooked(reference_engine(), frozen=gate)
        async with serving(config("background"), engine, clock) as service:
            admission = service.admission
            first = asyncio.create_task(predict(service, drifted(0)))
            await until_async(gate.reached.is_set, "the first request to reach the engine")
            old = asyncio.create_task(predict(service, drifted(1)))
            await queued(service, 1)
            clock.advance(1.0)
            held = []
            for _ in range(3):
                held += [admission.enter("") for _ in range(60) if admission.refuses("") is None]
                for _ in range(10):
                    held.pop().back()
                clock.advance(0.1)
                admission.refuses("")
            assert admission.overloaded
            young = asyncio.create_task(predict(service, drifted(2)))
            await queued(service, 2)
            gate.open()
            with pytest.raises(ResourceExhausted) as refused:
                await old
            assert refused.value.reason == "OVERLOADED"
            assert refused.value.retry_after_seconds is not None
            expected = reference_engine().frozen(drifted(2))
            np.testing.assert_array_equal((await young).outputs["logits"], expected)
            await first
            assert service.snapshot().admission.refused["stale"] == 1

    asyncio.run(scenario())
