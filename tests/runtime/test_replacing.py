"""What is under way when a model is replaced: requests in the engine, requests that wait, steps."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from acclimate.adapters.fields import STATS, THETA
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import NotFound, Unavailable
from acclimate.runtime.repository.moving import Unfit
from acclimate.runtime.service import Service
from acclimate.runtime.types import CreateSession, Seed
from tests.polling import until_async
from tests.runtime.hooked import Gate, Hooked
from tests.runtime.serving import config, drifted, learnt, opened, predict, request, serving, session_of

ROWS = 8


async def replaced(service: Service, new: Engine, unfit: Unfit = Unfit.REFUSE) -> None:
    """What `load` does once a bundle has been read and its engine made."""
    repository = service._parts.repository
    await repository._swap(service._parts.engines["reference"], new, unfit)
    repository._tell()


def queued(service: Service) -> int:
    return service.snapshot().queue_depth


async def _requests() -> None:
    gate = Gate()
    old = Hooked(reference_engine(), frozen=gate)
    new = replace(reference_engine(), weights=reference_engine(seed=1).weights)
    async with serving(config("background", scheduler={"max_batch": 1}), old) as service:
        gate.open()
        await opened(service, "s", "tent", batch_rows=ROWS)
        await predict(service, drifted(1, ROWS), "s")
        await until_async(lambda: session_of(service, "s").version == 1, "a step")
        gate.close()
        inside = asyncio.create_task(predict(service, drifted(2)))
        await until_async(gate.reached.is_set, "a request in the engine")
        waiting = [asyncio.create_task(predict(service, drifted(3), name)) for name in (None, "s")]
        await until_async(lambda: queued(service) == 2, "two requests to wait")
        before = learnt(service, "s")
        await replaced(service, new)
        gate.open()
        np.testing.assert_array_equal((await inside).outputs["logits"], old.inner.frozen(drifted(2)))
        stateless, session = [await task for task in waiting]
        np.testing.assert_array_equal(stateless.outputs["logits"], new.frozen(drifted(3)))
        expected = new.predict(drifted(3), new.fold(before[THETA], before[STATS]))
        np.testing.assert_array_equal(session.outputs["logits"], expected)
        assert session.parameters["acclimate_version"] == 2


def test_a_request_in_the_engine_ends_there_and_those_that_wait_go_to_the_new_one() -> None:
    asyncio.run(_requests())


async def _other_inputs() -> None:
    gate = Gate()
    old, new = Hooked(reference_engine(), frozen=gate), reference_engine(features=9)
    async with serving(config("background", scheduler={"max_batch": 1}), old) as service:
        await opened(service, "s", "tent", batch_rows=ROWS)
        inside = asyncio.create_task(predict(service, drifted(2), "s"))
        await until_async(gate.reached.is_set, "a request in the engine")
        waits = asyncio.create_task(predict(service, drifted(3)))
        await until_async(lambda: queued(service) == 1, "a request to wait")
        # Nothing has been learnt, so nothing is lost.
        await replaced(service, new)
        gate.open()
        assert (await inside).outputs["logits"].shape == (1, 4)
        with pytest.raises(Unavailable) as refused:
            await waits
        assert (refused.value.reason, refused.value.retry_after_seconds) == ("MODEL_REPLACED", 0.0)
        # What the old model was asked is nothing that the new one could learn from.
        assert len(session_of(service, "s").buffer) == 0
        await predict(service, drifted(4, ROWS, features=9), "s")
        await until_async(lambda: session_of(service, "s").account.updates == 1, "a step on the new model")


def test_requests_whose_inputs_the_new_model_does_not_take_are_sent_back() -> None:
    asyncio.run(_other_inputs())


async def _step() -> None:
    gate = Gate()
    old = Hooked(reference_engine(), vjp=gate)
    async with serving(config("background"), old) as service:
        await opened(service, "s", "tent", batch_rows=ROWS)
        await predict(service, drifted(1, ROWS), "s")
        await until_async(gate.reached.is_set, "a step under way")
        await replaced(service, reference_engine())
        gate.open()
        session = session_of(service, "s")
        await until_async(lambda: session.account.skipped["stale"] == 1, "the step to be dropped")
        assert (session.state.value, session.version) == ("pristine", 1)
        np.testing.assert_array_equal(learnt(service, "s")[THETA], reference_engine().source.theta)
        await predict(service, drifted(2, ROWS), "s")
        await until_async(lambda: session.account.updates == 1, "the next step")


def test_a_step_under_way_is_dropped() -> None:
    asyncio.run(_step())


async def _unloaded() -> None:
    gate = Gate()
    old = Hooked(reference_engine(), frozen=gate)
    async with serving(config("background", scheduler={"max_batch": 1}), old) as service:
        await opened(service, "s", "tent", batch_rows=ROWS)
        inside = asyncio.create_task(predict(service, drifted(2)))
        await until_async(gate.reached.is_set, "a request in the engine")
        waiting = [asyncio.create_task(predict(service, drifted(3), name)) for name in (None, "s")]
        await until_async(lambda: queued(service) == 2, "two requests to wait")
        await service.repository.unload("reference", Unfit.DROP)
        with pytest.raises(NotFound):
            await predict(service, drifted(4))
        gate.open()
        for task in (inside, *waiting):
            assert (await task).outputs["logits"].shape == (1, 4)
        assert old.closed == 1
        assert service.snapshot().models == ()


def test_requests_that_wait_for_a_model_that_is_unloaded_are_answered() -> None:
    asyncio.run(_unloaded())


async def _seeded() -> None:
    """A seed is judged on a thread; a model that is replaced meanwhile has not judged it."""
    gate = Gate()
    old = Hooked(reference_engine(), predict=gate)
    async with serving(config("background"), old) as service:
        seed = Seed({"norm.bias": np.full(8, 0.01, np.float32)})
        creating = asyncio.create_task(service.create_session(CreateSession("reference", "seeded", seed=seed)))
        await until_async(gate.reached.is_set, "the seed to be judged")
        await replaced(service, reference_engine())
        gate.open()
        with pytest.raises(Unavailable) as refused:
            await creating
        assert refused.value.reason == "MODEL_REPLACED"
        assert (await service.create_session(CreateSession("reference", "seeded", seed=seed))).version == 1


def test_a_seed_that_another_model_has_judged_is_judged_again() -> None:
    asyncio.run(_seeded())


def test_an_unknown_request_of_a_gone_model_is_counted_nowhere() -> None:
    async def run() -> None:
        async with serving() as service:
            await service.repository.unload("reference")
            with pytest.raises(NotFound):
                await service.infer(request(drifted(0)))

    asyncio.run(run())
