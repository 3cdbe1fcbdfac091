"""What a recipe's output stage does to answers, and which recipes a daemon refuses to open."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from acclimate.adapters.recipes import OFFLINE, RECIPES
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.types import CreateSession
from tests.runtime.serving import MODEL, drifted, learnt, opened, predict, serving

CLUSTER = drifted(3, 12)


def test_lame_corrects_the_answers_of_a_batch_and_leaves_those_of_others_alone() -> None:
    async def scenario() -> None:
        async with serving() as service:
            await opened(service, "smooth", "lame")
            await opened(service, "plain", "source")
            frozen = reference_engine().frozen(CLUSTER)
            plain = (await predict(service, CLUSTER, "plain")).outputs["logits"]
            smooth = (await predict(service, CLUSTER, "smooth")).outputs["logits"]
            np.testing.assert_array_equal(plain, frozen)
            assert not np.allclose(smooth, frozen, atol=1e-3)
            single = (await predict(service, CLUSTER[:1], "smooth")).outputs["logits"]
            assert single.argmax() == frozen[0].argmax()

    asyncio.run(scenario())


def test_an_output_stage_changes_no_state_at_serving_time() -> None:
    async def scenario() -> None:
        async with serving() as service:
            await opened(service, "s", "label_shift")
            before = learnt(service, "s")
            for _ in range(3):
                await predict(service, CLUSTER[:2], "s", acclimate_adapt=False)
            for name, value in learnt(service, "s").items():
                np.testing.assert_array_equal(value, before[name], err_msg=name)

    asyncio.run(scenario())


@pytest.mark.parametrize("name", sorted(OFFLINE))
def test_a_recipe_that_cannot_be_served_says_why(name: str) -> None:
    async def scenario() -> None:
        async with serving() as service:
            with pytest.raises(InvalidArgument, match=OFFLINE[name]):
                await service.create_session(CreateSession(MODEL, "s", recipe=name))
            assert service.snapshot().models[0].sessions_created == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("name", sorted(set(RECIPES) - set(OFFLINE)))
def test_every_other_recipe_serves_and_steps(name: str) -> None:
    async def scenario() -> None:
        async with serving() as service:
            await opened(service, "s", name)
            for turn in range(5):
                reply = await predict(service, drifted(turn, 16), "s")
                assert np.isfinite(reply.outputs["logits"]).all()
            view = await service.get_session(MODEL, "s")
            stepped = view.updates + view.rollbacks + sum(view.skipped.values())
            assert (stepped > 0) == (name != "source")

    asyncio.run(scenario())
