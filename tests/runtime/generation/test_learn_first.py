"""A text after a lesson, out of one budget: over a real socket, what each costs, and who keeps what was learnt."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from acclimate.runtime.client import (
    AsyncClient,
    Budget,
    Client,
    ClientError,
    ComputeBudget,
    EventKind,
    LearnVerdict,
    Message,
    Strategy,
    learn_first,
)
from acclimate.v1 import generation_service_pb2 as pb
from tests.runtime.generation.test_generate import GENERATE
from tests.runtime.generation.test_learn import FAST, TEXTS, bits
from tests.runtime.generation.writers import CORPUS, MODEL, PROMPT, Held, writing
from tests.runtime.rpc.loopback import Loopback

WHOLE = ComputeBudget(max_tokens=60_000)
LONG = CORPUS[:300]


def test_a_session_learns_its_prompt_and_writes_with_what_it_learnt(client: Client) -> None:
    with client.create_session(MODEL, "reader", recipe_parameters=FAST) as session, session.watch() as events:
        base = session.generate(LONG, max_tokens=60).read()
        text = session.generate(LONG, max_tokens=60, budget=WHOLE, learn=learn_first(0.9))
        written = text.read()
        lesson = text.lesson
        assert lesson is not None
        assert lesson.verdict is LearnVerdict.COMMITTED
        assert lesson.held_out_perplexity_after < lesson.held_out_perplexity_before, "a passage was held out"
        assert (lesson.version, text.version, session.get().version) == (1, 1, 1)
        assert next(events).kind is EventKind.APPLIED
        assert text.usage is not None
        assert (text.usage.learned_tokens, text.usage.learning_ms) == (lesson.tokens, lesson.cost_ms)
        assert lesson.tokens <= 54_000
        assert written != base
        assert session.generate(LONG, max_tokens=60).read() == written


def test_the_time_to_the_first_token_is_the_texts_own(running: Loopback, client: Client) -> None:
    def waited() -> float:
        return running.service.generating.snapshot()[0].first_token_seconds.total

    with client.create_session(MODEL, "waits", recipe_parameters=FAST) as session:
        before = waited()
        text = session.generate(LONG, max_tokens=2, budget=WHOLE, learn=learn_first(0.9))
        text.read()
        assert text.usage is not None
        assert text.lesson is not None
        assert text.usage.first_token_ms > text.lesson.elapsed_ms > 0
        own_ms = text.usage.first_token_ms - text.lesson.elapsed_ms
        assert 1e3 * (waited() - before) == pytest.approx(own_ms, abs=1e-3)


def test_what_is_learnt_for_one_text_is_forgotten_with_it(client: Client) -> None:
    with client.create_session(MODEL, "passing", recipe_parameters=FAST) as session, session.watch() as events:
        before, base = bits(session.export()), session.generate(PROMPT, max_tokens=60).read()
        chosen = learn_first(0.9, texts=TEXTS, discard=True)
        text = session.generate(PROMPT, max_tokens=60, budget=WHOLE, learn=chosen)
        assert text.read() != base
        assert text.lesson is not None
        assert (text.lesson.verdict, text.version) == (LearnVerdict.USED, 0)
        view = session.get()
        assert (view.version, view.updates, bits(session.export())) == (0, 0, before)
        assert view.adaptation_ms == pytest.approx(text.lesson.cost_ms, abs=1e-2)
        assert session.generate(PROMPT, max_tokens=60).read() == base
        session.pause()
        assert next(events).kind is EventKind.PAUSED, "nobody heard of a step"
        paused = session.generate(PROMPT, max_tokens=60, budget=WHOLE, learn=chosen)
        assert paused.read() == text.text
        with pytest.raises(ClientError, match="SESSION_PAUSED"):
            session.generate(PROMPT, budget=WHOLE, learn=learn_first(0.9, texts=TEXTS)).read()


def test_both_ways_write_the_same(client: Client) -> None:
    texts = []
    for discard in (False, True):
        with client.create_session(MODEL, f"way-{discard}", recipe_parameters=FAST) as session:
            chosen = learn_first(0.5, texts=TEXTS, discard=discard)
            texts.append(session.generate(PROMPT, max_tokens=40, budget=WHOLE, learn=chosen).read())
    assert texts[0] == texts[1]


def test_demonstrations_and_a_recipe_of_ones_own(client: Client) -> None:
    shown = [(f"{n} is ", "odd." if n % 2 else "even.") for n in range(12)]
    with client.create_session(MODEL, "shown") as session:
        chosen = learn_first(0.9, pairs=shown, recipe="supervised", recipe_parameters={"lr": 0.02, "epochs": 8})
        text = session.generate("4 is ", max_tokens=5, budget=WHOLE, learn=chosen)
        text.read()
        assert text.lesson is not None
        assert text.lesson.verdict is LearnVerdict.COMMITTED
        turns = [Message("user", "the quick brown fox? " * 5)]
        talked = session.generate(turns, max_tokens=5, budget=WHOLE, learn=learn_first(0.9, recipe_parameters=FAST))
        talked.read()
        assert talked.lesson is not None
        assert talked.lesson.steps > 0


def test_a_lesson_that_is_refused_or_cannot_be_paid_for_leaves_the_text(client: Client) -> None:
    with client.create_session(MODEL, "refused", recipe_parameters=FAST) as session:
        base = session.generate(PROMPT, max_tokens=30).read()
        wild = learn_first(0.9, texts=TEXTS, recipe_parameters=FAST | {"lr": 1.0, "warmup": 0.0})
        poor = learn_first(1e-3, texts=TEXTS)
        for chosen, verdict in ((wild, LearnVerdict.ROLLED_BACK), (poor, LearnVerdict.SKIPPED)):
            text = session.generate(PROMPT, max_tokens=30, budget=WHOLE, learn=chosen)
            assert text.read() == base
            assert text.lesson is not None
            assert (text.lesson.verdict, session.get().version) == (verdict, 0)
            assert text.lesson.reason == "budget" or verdict is LearnVerdict.ROLLED_BACK
        assert session.generate(PROMPT, max_tokens=30, budget=WHOLE, learn=learn_first(0.0)).read() == base


def test_drawing_has_what_learning_left(client: Client) -> None:
    with client.create_session(MODEL, "split", recipe_parameters=FAST) as session:
        for strategy, samples in ((Strategy.NONE, 1), (Strategy.BEST_OF_N, 4)):
            asked: dict[str, Any] = {"temperature": 1.0, "strategy": strategy, "samples": samples, "max_tokens": 400}
            poor = session.generate(PROMPT, budget=ComputeBudget(max_tokens=40), **asked)
            poor.read()
            assert poor.usage is not None
            assert (poor.finish, poor.usage.generated_tokens) == ("budget", 40)
            learn = learn_first(0.1, texts=TEXTS, discard=True)
            text = session.generate(PROMPT, budget=ComputeBudget(max_tokens=100), learn=learn, **asked)
            text.read()
            assert text.usage is not None
            assert (text.finish, text.usage.learned_tokens, text.usage.generated_tokens) == ("budget", 0, 100)
        one = session.generate(PROMPT, budget=ComputeBudget(max_tokens=1), strategy=Strategy.BEST_OF_N, samples=4,
                               temperature=1.0)  # fmt: skip
        assert one.read() is not None
        assert one.usage is not None
        assert one.usage.generated_tokens == 4, "each text has its token"
        assert session.generate(PROMPT, max_tokens=5, budget=WHOLE).finish == ""


@pytest.mark.parametrize("strategy", [Strategy.NONE, Strategy.FIRST_FINISH])
def test_time_ends_a_text_after_a_token(strategy: Strategy) -> None:
    held = Held()
    held.steps = 1
    with writing(held) as running, Client(running.target) as client:
        asked: dict[str, Any] = {"strategy": strategy, "samples": 2, "temperature": 1.0, "max_tokens": 400}
        text = client.generate(MODEL, PROMPT, budget=ComputeBudget(max_ms=1e-6), **asked)
        assert len(list(text)) == 1
        assert text.finish == "budget"
        assert text.usage is not None
        assert text.usage.generated_tokens == (1 if strategy is Strategy.NONE else 2)
        held.go.set()
        whole = client.generate(MODEL, PROMPT, budget=ComputeBudget(max_ms=1e9), **asked)
        whole.read()
        assert whole.finish != "budget"
        counted = running.service.generating.snapshot()[0].texts
        assert counted["budget"] == 1


@pytest.mark.parametrize(
    ("given", "reason", "field"),
    [
        ({"learn": learn_first(1.5), "budget": WHOLE}, "SHARE_INVALID", "learn.share"),
        ({"learn": learn_first(-0.1), "budget": WHOLE}, "SHARE_INVALID", "learn.share"),
        ({"learn": learn_first(float("nan")), "budget": WHOLE}, "SHARE_INVALID", "learn.share"),
        ({"learn": learn_first(0.5)}, "SHARE_WITHOUT_BUDGET", "budget"),
        ({"budget": ComputeBudget(max_tokens=-1)}, "BUDGET_INVALID", "budget.max_tokens"),
        ({"budget": ComputeBudget(max_ms=float("nan"))}, "BUDGET_INVALID", "budget.max_ms"),
        ({"learn": learn_first(0.5, recipe="ttt"), "budget": WHOLE}, "MATERIAL_INVALID", "learn.recipe"),
        ({"learn": learn_first(0.5, recipe="majority"), "budget": WHOLE}, "MATERIAL_INVALID", "learn.recipe"),
        ({"learn": learn_first(0.5, recipe="tent"), "budget": WHOLE}, "RECIPE_INVALID", "recipe"),
        ({"learn": learn_first(0.5, texts=[""]), "budget": WHOLE}, "MATERIAL_INVALID", "texts"),
        ({"prompt": "x", "learn": learn_first(0.5), "budget": WHOLE}, "MATERIAL_INVALID", "prompt"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(
    client: Client, given: dict[str, Any], reason: str, field: str
) -> None:
    with client.create_session(MODEL, "strict") as session:
        asked = {"prompt": LONG} | given
        with pytest.raises(ClientError) as caught:
            session.generate(asked.pop("prompt"), **asked).read()
        assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", reason)
        assert field in caught.value.fields
        assert session.get().version == 0


def test_the_base_learns_nothing_and_a_share_has_to_be_said(running: Loopback, client: Client) -> None:
    with pytest.raises(ClientError, match="LEARN_WITHOUT_SESSION"):
        client.generate(MODEL, LONG, budget=WHOLE, learn=learn_first(0.5)).read()
    message = pb.GenerateRequest(name=f"models/{MODEL}", prompt=LONG, budget={"max_tokens": 9}, learn={"recipe": "tlm"})
    with running.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        list(channel.unary_stream(GENERATE)(message.SerializeToString()))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "learn.share is not set" in caught.value.details()


def test_a_session_without_a_budget_is_told_when_to_come_back() -> None:
    with writing() as running, Client(running.target, attempts=1) as client:
        session = client.create_session(MODEL, "broke", budget=Budget(0.0, 0.0))
        with pytest.raises(ClientError) as caught:
            session.generate(LONG, budget=WHOLE, learn=learn_first(0.5)).read()
        assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "BUDGET_EXHAUSTED")
        assert session.generate(PROMPT, max_tokens=3, budget=WHOLE).read()


def test_the_asyncio_client_learns_first_as_well(running: Loopback) -> None:
    async def scenario() -> None:
        async with AsyncClient(running.target) as aio:
            session = await aio.create_session(MODEL, "aio-first", recipe_parameters=FAST)
            text = session.generate(PROMPT, max_tokens=5, budget=WHOLE, learn=learn_first(0.5, texts=TEXTS))
            await text.read()
            assert text.lesson is not None
            assert text.lesson.verdict is LearnVerdict.COMMITTED
            await session.delete()

    asyncio.run(scenario())
