"""What a recipe's output stage does to answers, and which recipes a daemon refuses to open."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from acclimate.adapters.guards import Guards
from acclimate.adapters.prototypes import Prototypes
from acclimate.adapters.recipes import RECIPES, build, template
from acclimate.adapters.requests import Forward, Rows
from acclimate.adapters.step import Batch, adaptation_step
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.scheduler.drive import Slicing, run_step
from acclimate.runtime.types import Budget, CreateSession, Feedback
from tests.runtime.serving import MODEL, config, drifted, learnt, opened, predict, serving

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


@pytest.mark.parametrize("name", ["t3a", "cafa"])
def test_a_recipe_that_this_model_cannot_run_says_why(name: str) -> None:
    engine = reference_engine()
    engine.__dict__["source"] = replace(engine.source, features=None)

    async def scenario() -> None:
        async with serving(engine=engine) as service:
            with pytest.raises(InvalidArgument, match="the bundle has no features"):
                await service.create_session(CreateSession(MODEL, "s", recipe=name))
            assert service.snapshot().models[0].sessions_created == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_serves_and_steps(name: str) -> None:
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


def test_memo_answers_with_the_step_over_a_requests_own_samples_and_pays_for_it() -> None:
    async def scenario() -> None:
        engine, inputs = reference_engine(), drifted(1, 12)
        source, recipe = engine.source, build("memo", {"batch_rows": 8, "views": 4}, engine.source, Guards())
        async with serving() as service:
            await opened(service, "s", "memo", batch_rows=8, views=4)
            reply = await predict(service, inputs, "s", request_id="r")
            view = await service.get_session(MODEL, "s")
            assert (view.requests, view.samples, view.buffered, view.updates) == (1, 12, 0, 2)
            assert view.backward_samples == 12
            cost, rows = engine.manifest.cost, 12
            assert view.adaptation_ms > 4 * rows * cost.vjp_ms, "four gradients a sample were not paid for"
            remembered = reply.outputs["logits"].argmax(axis=1)
            labels = [Feedback("r", int(label), row) for row, label in enumerate(remembered)]
            assert (await service.feedback(MODEL, "s", labels)).correct == 12
        state = {name: value[np.newaxis] for name, value in template(recipe, source).items()}
        for part in (slice(0, 8), slice(8, 12)):
            batch = Batch(inputs[part], np.zeros(len(inputs[part]), np.intp))
            result = run_step(adaptation_step(recipe, source, state, batch), engine, Slicing(1000, lambda: None))
            np.testing.assert_allclose(reply.outputs["logits"][part], result.logits, rtol=1e-5, atol=1e-6)
            state = result.state
        assert not np.allclose(reply.outputs["logits"], engine.frozen(inputs), atol=1e-3)

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["background", "synchronous"])
def test_memo_answers_as_the_source_does_where_the_budget_is_spent(mode: str) -> None:
    async def scenario() -> None:
        inputs = drifted(1, 8)
        async with serving(config(mode)) as service:
            await opened(service, "s", "memo", budget=Budget(0.0, 0.0))
            reply = await predict(service, inputs, "s")
            np.testing.assert_array_equal(reply.outputs["logits"], reference_engine().frozen(inputs))
            assert (await service.get_session(MODEL, "s")).skipped == {"budget": 1}

    asyncio.run(scenario())


def test_requests_of_one_memo_session_at_once_lose_no_step() -> None:
    async def scenario() -> None:
        async with serving(config("background")) as service:
            await opened(service, "s", "memo", views=2)
            replies = await asyncio.gather(*(predict(service, drifted(n, 3), "s") for n in range(6)))
            view = await service.get_session(MODEL, "s")
            assert view.updates == view.version == 6
            assert learnt(service, "s")["steps"] == 6
            assert all(np.isfinite(reply.outputs["logits"]).all() for reply in replies)

    asyncio.run(scenario())


def test_t3a_answers_from_the_features_of_the_float_pass_once_it_has_stepped() -> None:
    async def scenario() -> None:
        engine, inputs = reference_engine(), drifted(2, 5)
        async with serving() as service:
            await opened(service, "s", "t3a", batch_rows=16)
            first = (await predict(service, inputs, "s", acclimate_adapt=False)).outputs["logits"]
            np.testing.assert_array_equal(first, engine.frozen(inputs))
            await predict(service, drifted(3, 16), "s")
            state = learnt(service, "s")
            served = (await predict(service, inputs, "s", acclimate_adapt=False)).outputs["logits"]
            theta, stats = (np.repeat(state[name][np.newaxis], 5, axis=0) for name in ("theta", "stats"))
            outputs = engine.forward(Forward(Rows(inputs, theta, stats, np.arange(5), np.zeros(5, np.float32))))
            one = {name: value[np.newaxis] for name, value in state.items()}
            group = np.zeros(5, np.intp)
            expected, _ = Prototypes().apply(engine.source, one, outputs.logits, group, outputs.features)
            np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-6)
            for name, value in learnt(service, "s").items():
                np.testing.assert_array_equal(value, state[name], err_msg=name)

    asyncio.run(scenario())
