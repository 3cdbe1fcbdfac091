"""Texts over a real socket: they are the decoder's own, end as asked, and leave nothing behind."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import numpy as np
import pytest
from structlog.testing import capture_logs

from acclimate.runtime.client import AsyncClient, Client, ClientError, Message, Strategy, operations
from acclimate.runtime.engines.language import Sampling
from acclimate.runtime.errors import FailedPrecondition
from acclimate.runtime.types import InferRequest
from acclimate.v1 import generation_service_pb2 as pb
from tests.polling import until
from tests.runtime.generation.writers import MODEL, PROMPT, Held, alone, engine, writing
from tests.runtime.rpc.loopback import MODEL as NUMERIC
from tests.runtime.rpc.loopback import Loopback, samples

GENERATE = "/acclimate.v1.GenerationService/Generate"


def test_tokens_are_those_of_a_decoder_of_ones_own(client: Client) -> None:
    sampling = Sampling(40, temperature=0.8, top_p=0.9, seed=7)
    expected = alone(engine(), sampling)
    text = client.generate(MODEL, PROMPT, max_tokens=40, temperature=0.8, top_p=0.9, seed=7)
    tokens = list(text)
    assert [token.id for token in tokens] == [token.token for token in expected]
    np.testing.assert_allclose([t.logprob for t in tokens], [t.logprob for t in expected], rtol=1e-5)
    np.testing.assert_allclose([t.entropy for t in tokens], [t.entropy for t in expected], rtol=1e-5)
    assert text.text == "".join(token.text for token in expected)
    assert (text.finish, text.version) == (expected[-1].finish, 0)
    assert text.usage is not None
    assert (text.usage.prompt_tokens, text.usage.generated_tokens) == (len(PROMPT), len(expected))
    assert 0 < text.usage.first_token_ms <= text.usage.total_ms


@pytest.mark.parametrize("chosen", [{"temperature": 5e-324}, {"temperature": 1.0, "top_p": 5e-324}])
def test_what_is_smallest_is_greedy(chosen: dict[str, float]) -> None:
    """What mutated messages found: a nucleus with nobody in it."""
    greedy, drawn = (alone(engine(), Sampling(20, **sampling)) for sampling in ({}, chosen))
    assert [token.token for token in drawn] == [token.token for token in greedy]


def test_texts_written_together_are_what_each_is_alone(client: Client) -> None:
    def one(seed: int) -> str:
        return client.generate(MODEL, PROMPT, max_tokens=30, temperature=1.0, seed=seed).read()

    expected = [one(seed) for seed in range(12)]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(one, range(12))) == expected
    assert len(set(expected)) > 6


def test_a_conversation_and_a_stop_text(client: Client) -> None:
    turns = [Message("user", "the fox?"), {"role": "assistant", "content": "the dog"}, {"role": "user", "content": "o"}]
    whole = client.generate(MODEL, turns, max_tokens=40).read()
    assert len(whole) > 8
    stopped = client.generate(MODEL, turns, max_tokens=40, stop=[whole[4:7]])
    assert stopped.read() == whole[: whole.index(whole[4:7])]
    assert stopped.finish == "stop"


def test_a_text_ends_where_the_context_does(client: Client) -> None:
    text = client.generate(MODEL, "x" * 500, max_tokens=100)
    text.read()
    assert text.finish == "context"


def test_the_asyncio_client_writes_the_same(running: Loopback, client: Client) -> None:
    async def scenario() -> str:
        async with AsyncClient(running.target) as aio:
            text = aio.generate(MODEL, PROMPT, max_tokens=20)
            assert [token.text async for token in text]
            async with aio.generate(MODEL, PROMPT, max_tokens=400, temperature=2.0) as left:
                await anext(left)
            with pytest.raises(StopAsyncIteration):
                await anext(left)
            return text.text

    assert asyncio.run(scenario()) == client.generate(MODEL, PROMPT, max_tokens=20).read()


@pytest.mark.parametrize(
    ("given", "reason", "field"),
    [
        ({"prompt": ""}, "PROMPT_EMPTY", "prompt"),
        ({"prompt": []}, "PROMPT_EMPTY", "prompt"),
        ({"prompt": "x" * 512}, "PROMPT_TOO_LONG", "prompt"),
        ({"prompt": [Message("robot", "x")]}, "ROLE_INVALID", "conversation.messages.role"),
        ({"max_tokens": -1}, "SAMPLING_INVALID", "sampling.max_tokens"),
        ({"max_tokens": 1_000_000}, "SAMPLING_INVALID", "sampling.max_tokens"),
        ({"temperature": -0.1}, "SAMPLING_INVALID", "sampling.temperature"),
        ({"temperature": float("nan")}, "SAMPLING_INVALID", "sampling.temperature"),
        ({"top_p": 0.0}, "SAMPLING_INVALID", "sampling.top_p"),
        ({"top_p": float("inf")}, "SAMPLING_INVALID", "sampling.top_p"),
        ({"stop": [""]}, "SAMPLING_INVALID", "sampling.stop"),
        ({"stop": ["x"] * 17}, "SAMPLING_INVALID", "sampling.stop"),
        ({"seed": -1}, "SAMPLING_INVALID", "sampling.seed"),
    ],
)
def test_what_cannot_be_written_is_refused_by_its_field(client: Client, given: dict, reason: str, field: str) -> None:
    asked = {"prompt": PROMPT} | given
    with pytest.raises(ClientError) as caught:
        client.generate(MODEL, asked.pop("prompt"), **asked).read()
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", reason)
    assert list(caught.value.fields) == [field]


def test_who_is_not_there_or_of_another_kind_is_told_so(client: Client) -> None:
    for asked, code, reason in (
        (("nobody", None), "NOT_FOUND", "MODEL_NOT_FOUND"),
        ((MODEL, "nobody"), "NOT_FOUND", "SESSION_NOT_FOUND"),
        ((NUMERIC, None), "FAILED_PRECONDITION", "MODEL_ANSWERS_ARRAYS"),
    ):
        with pytest.raises(ClientError) as caught:
            client.generate(asked[0], PROMPT, session_id=asked[1]).read()
        assert (caught.value.code, caught.value.reason) == (code, reason)
        with pytest.raises(ClientError, match=reason):
            client.score(asked[0], ["a text"], session_id=asked[1])


def test_text_that_is_not_utf8_is_refused(running: Loopback, client: Client) -> None:
    with pytest.raises(ClientError, match="TEXT_ENCODING_INVALID"):
        client.generate(MODEL, "a \ud800 lone surrogate")
    message = pb.GenerateRequest(name=f"models/{MODEL}", prompt="abc").SerializeToString().replace(b"abc", b"\xff\xfe.")
    with running.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        list(channel.unary_stream(GENERATE)(message))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "UTF-8" in caught.value.details()


def test_a_search_strategy_that_there_is_not_is_refused(running: Loopback) -> None:
    message = pb.GenerateRequest(name=f"models/{MODEL}", prompt="abc")
    message.search.strategy = 77  # type: ignore[assignment]
    with running.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        list(channel.unary_stream(GENERATE)(message.SerializeToString()))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_client_that_leaves_gives_its_slot_back() -> None:
    held = Held()
    with writing(held, language={"slots": 2}) as running, Client(running.target) as client:
        figures = running.service.generating.snapshot
        for given_up in range(1, 4):
            held.steps = 1
            with client.generate(MODEL, PROMPT, max_tokens=480, temperature=1.0) as text:
                next(text)
            until(partial(lambda count: figures()[0].texts.get("cancelled") == count, given_up), "it to be given up")
            held.go.set()
            until(lambda: figures()[0].slots_in_use == 0, "its slot to be free")
            held.go.clear()
        held.go.set()
        until(lambda: figures()[0].slots_in_use == 0 and held.decoders[0].free == 2, "the slots to be free")


def test_a_deadline_ends_a_text_and_one_that_waits_never_begins() -> None:
    held = Held()
    with writing(held, language={"slots": 1}) as running, Client(running.target) as client:
        for _ in range(2):
            with pytest.raises(ClientError) as caught:
                client.generate(MODEL, PROMPT, max_tokens=400, timeout_seconds=0.1).read()
            assert caught.value.code == "DEADLINE_EXCEEDED"
        held.go.set()
        until(lambda: running.service.generating.snapshot()[0].slots_in_use == 0, "the slot to be free")
        assert client.generate(MODEL, PROMPT, max_tokens=3).read()


def test_too_many_texts_are_refused_with_a_time_to_come_back() -> None:
    held, limits = Held(), {"generation": {"max_queue": 2}, "language": {"slots": 1}}
    with writing(held, **limits) as running, Client(running.target, attempts=1) as client:
        figures = running.service.generating.snapshot

        def known(count: int) -> bool:
            return figures()[0].slots_in_use + figures()[0].texts_waiting == count

        with ThreadPoolExecutor(3) as pool:
            begun = []
            for place in range(3):
                begun.append(pool.submit(client.generate(MODEL, PROMPT, max_tokens=2).read))
                until(partial(known, place + 1), "a text to be queued")
            with pytest.raises(ClientError) as caught:
                client.generate(MODEL, PROMPT).read()
            assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
            assert caught.value.retry_after_seconds
            held.go.set()
            assert len({text.result(60) for text in begun}) == 1


def test_a_decoder_that_fails_costs_its_texts_and_no_others() -> None:
    held = Held()
    held.go.set()
    with writing(held) as running, Client(running.target) as client:
        held.decoder(1)
        assert client.generate(MODEL, PROMPT, max_tokens=2).read()
        held.decoders[-1].broken = True
        with capture_logs() as logged, pytest.raises(ClientError) as caught:
            client.generate(MODEL, PROMPT, max_tokens=2).read()
        assert caught.value.code == "INTERNAL"
        assert "texts could not be continued" in [entry["event"] for entry in logged]
        assert client.generate(MODEL, PROMPT, max_tokens=2).read()


def test_a_draining_daemon_finishes_its_texts_and_begins_none(running: Loopback) -> None:
    held = Held()
    with writing(held) as up, Client(up.target, reconnect=False) as client, ThreadPoolExecutor(1) as pool:
        written = pool.submit(client.generate(MODEL, PROMPT, max_tokens=5).read)
        until(lambda: up.service.generating.snapshot()[0].slots_in_use == 1, "the text to begin")
        draining = asyncio.run_coroutine_threadsafe(up.service.drain(30.0), up.loop)
        until(lambda: not up.service.ready, "the daemon to drain")

        def refused() -> bool:
            with pytest.raises(ClientError) as caught:
                client.generate(MODEL, PROMPT, max_tokens=1, timeout_seconds=0.2).read()
            return caught.value.reason == "DRAINING"

        until(refused, "further texts to be refused")
        held.go.set()
        assert len(written.result(60)) == 5
        draining.result(60)


def test_arrays_and_labels_are_refused_by_a_model_that_writes(running: Loopback, client: Client) -> None:
    asked = operations.predict(client.model(NUMERIC), samples(1), {}, None)
    asked.request.model_name = MODEL
    with pytest.raises(ClientError, match="a language model takes 'text_input'") as caught:
        client._calls.call(asked)
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "INPUTS_MISMATCH")
    with pytest.raises(FailedPrecondition, match="is a language model"):
        running.run(running.service.infer(InferRequest(MODEL, "", "", {}, (), {})))
    with client.create_session(MODEL, "unlabelled") as session:
        with pytest.raises(ClientError) as caught:
            session.feedback("r", 0)
        assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "MODEL_WRITES_TEXT")


def test_scores_are_the_engines(client: Client) -> None:
    reply = client.score(MODEL, ["fox jumps", "xof spmuj"], context=PROMPT, each_token=True)
    one, other = reply.scored
    assert (reply.version, one.tokens, len(one.each)) == (0, 9, 9)
    assert "".join(token.text for token in one.each) == "fox jumps"
    assert one.logprob == pytest.approx(sum(token.logprob for token in one.each), rel=1e-5)
    assert one.perplexity == pytest.approx(np.exp(-one.logprob / 9), rel=1e-5)
    assert other.each[0].text
    free = client.score(MODEL, ["fox jumps"])
    assert free.scored[0].tokens == 8
    assert not free.scored[0].each


@pytest.mark.parametrize(
    ("texts", "context", "reason"),
    [
        ([], None, "TEXT_COUNT_INVALID"),
        (["x"], None, "TEXT_EMPTY"),
        ([""], "abc", "TEXT_EMPTY"),
        (["x" * 513], None, "TEXT_TOO_LONG"),
        (["x" * 510], "abc", "TEXT_TOO_LONG"),
        (["x"], "", "PROMPT_EMPTY"),
    ],
)
def test_what_cannot_be_scored_is_refused(client: Client, texts: list, context: str | None, reason: str) -> None:
    with pytest.raises(ClientError) as caught:
        client.score(MODEL, texts, context=context)
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", reason)


@pytest.mark.parametrize("strategy", [s for s in Strategy if s is not Strategy.NONE])
def test_a_search_tells_one_of_its_texts(client: Client, strategy: Strategy) -> None:
    drawn = {"max_tokens": 24, "temperature": 1.5, "seed": 2, "stop": ["e"]}
    found = client.generate(MODEL, PROMPT, strategy=strategy, samples=5, **drawn)
    text = found.read()
    alone = [client.generate(MODEL, PROMPT, **drawn | {"seed": 2 + place}) for place in range(5)]
    for other in alone:
        other.read()
    assert text in [other.text for other in alone]
    assert found.usage is not None
    assert found.usage.generated_tokens > found.usage.generated_tokens / 5 > 0
    if strategy is Strategy.BEST_OF_N:
        tokens = [list(client.generate(MODEL, PROMPT, **drawn | {"seed": 2 + place})) for place in range(5)]
        best = max(tokens, key=lambda own: sum(token.logprob for token in own) / len(own))
        assert text == "".join(token.text for token in best)
        assert found.usage.generated_tokens == sum(len(own) for own in tokens)


def test_a_search_that_is_none_is_refused_and_one_that_is_left_frees_its_slots() -> None:
    held = Held()
    with writing(held) as running, Client(running.target) as client:
        for asked in ({"samples": 1}, {"samples": 17}, {"samples": 4, "temperature": 0.0}):
            with pytest.raises(ClientError, match="SAMPLING_INVALID"):
                client.generate(MODEL, PROMPT, **{"temperature": 1.0, "strategy": Strategy.BEST_OF_N} | asked).read()
        figures = running.service.generating.snapshot
        with client.generate(MODEL, PROMPT, strategy=Strategy.BEST_OF_N, samples=4, temperature=1.0) as text:
            waiting = ThreadPoolExecutor(1).submit(text.read)
            until(lambda: figures()[0].slots_in_use + figures()[0].texts_waiting == 4, "the texts to be known")
        held.go.set()
        until(lambda: figures()[0].slots_in_use == 0, "the slots to be free")
        with pytest.raises(ClientError):
            waiting.result(60)
