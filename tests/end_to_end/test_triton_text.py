"""A language model for clients of Triton's LLM backends: the real tritonclient, over a real socket."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from acclimate.runtime.client import Client
from tests.polling import until
from tests.runtime.generation.writers import MODEL, PROMPT, Held, writing
from tests.runtime.rpc.loopback import Loopback

PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def running() -> Iterator[Loopback]:
    with writing() as up:
        yield up


@pytest.fixture
def client(running: Loopback) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(running.target) as opened:
        yield opened


def texts(name: str, *values: str | bytes, shape: tuple[int, ...] | None = None) -> triton.InferInput:
    array = np.array([v if isinstance(v, bytes) else v.encode() for v in values], np.object_)
    array = array.reshape(shape or array.shape)
    tensor = triton.InferInput(name, array.shape, "BYTES")
    tensor.set_data_from_numpy(array)
    return tensor


def one(name: str, value: Any, datatype: str, kind: type) -> triton.InferInput:
    tensor = triton.InferInput(name, [1], datatype)
    tensor.set_data_from_numpy(np.array([value], kind))
    return tensor


def written(running: Loopback, **drawing: Any) -> str:
    """What our own client gets."""
    with Client(running.target) as own:
        return own.generate(MODEL, PROMPT, **drawing).read()


def known(running: Loopback) -> int:
    """Texts that are written or wait."""
    figures = running.service.generating.snapshot()[0]
    return figures.slots_in_use + figures.texts_waiting


def output(result: triton.InferResult) -> str:
    return result.as_numpy("text_output").reshape(-1)[0].decode()


def parameter(result: triton.InferResult, name: str) -> Any:
    value = result.get_response().parameters[name]
    return getattr(value, value.WhichOneof("parameter_choice"))


def streamed(target: str, inputs: list, **options: Any) -> list[triton.InferResult]:
    """Every response to one request of a stream."""
    heard: queue.Queue = queue.Queue()
    with triton.InferenceServerClient(target) as client:
        client.start_stream(lambda result, error: heard.put(error or result))
        client.async_stream_infer(MODEL, inputs, request_id="one", **options)
        results = []
        while True:
            result = heard.get(timeout=PATIENCE_SECONDS)
            if isinstance(
                result, triton.InferenceServerException if hasattr(triton, "InferenceServerException") else Exception
            ):
                raise result
            results.append(result)
            if parameter(result, "triton_final_response"):
                client.stop_stream()
                return results


def test_the_whole_text_in_one_answer(running: Loopback, client: triton.InferenceServerClient) -> None:
    expected = written(running, max_tokens=30, temperature=0.9, top_p=0.8, seed=4)
    said = {"max_tokens": 30, "temperature": 0.9, "top_p": 0.8, "seed": 4}
    result = client.infer(MODEL, [texts("text_input", PROMPT)], parameters=said, request_id="r1")
    assert output(result) == expected
    assert result.get_response().id == "r1"
    assert parameter(result, "acclimate_generated_tokens") == len(expected)
    assert parameter(result, "acclimate_finish_reason") == "length"
    assert result.as_numpy("text_output").shape == (1,)
    batched = client.infer(MODEL, [texts("text_input", PROMPT, shape=(1, 1))], parameters=said)
    assert (output(batched), batched.as_numpy("text_output").shape) == (expected, (1, 1))


def test_what_is_said_in_tensors_or_as_json_means_the_same(
    running: Loopback, client: triton.InferenceServerClient
) -> None:
    expected = written(running, max_tokens=25, temperature=0.7, seed=9, stop=["zz"])
    as_tensors = [
        texts("text_input", PROMPT),
        one("max_tokens", 25, "INT32", np.int32),
        one("temperature", 0.7, "FP32", np.float32),
        one("random_seed", 9, "UINT64", np.uint64),
        texts("stop_words", "zz", "yyy"),
    ]
    assert output(client.infer(MODEL, as_tensors)) == expected
    said = json.dumps({"temperature": "0.7", "max_tokens": "25", "seed": 9, "stop": ["zz"]})
    assert output(client.infer(MODEL, [texts("text_input", PROMPT), texts("sampling_parameters", said)])) == expected
    echo = [texts("text_input", PROMPT), one("exclude_input_in_output", False, "BOOL", np.bool_)]
    assert output(client.infer(MODEL, echo, parameters={"sampling_parameters": said})) == PROMPT + expected


def test_a_stream_answers_token_by_token(running: Loopback) -> None:
    inputs = [texts("text_input", PROMPT), one("stream", True, "BOOL", np.bool_)]
    said = {"max_tokens": 20, "temperature": 1.0, "seed": 3}
    results = streamed(running.target, inputs, parameters=said, enable_empty_final_response=True)
    assert "".join(output(result) for result in results) == written(running, **said)
    assert len(results) == 20
    assert [parameter(result, "triton_final_response") for result in results] == [False] * 19 + [True]
    assert {result.get_response().id for result in results} == {"one"}
    assert all(parameter(result, "acclimate_logprob") < 0 for result in results)
    whole = streamed(running.target, [texts("text_input", PROMPT)], parameters=said)
    assert [output(result) for result in whole] == [written(running, **said)]


def test_texts_of_one_stream_are_written_side_by_side() -> None:
    held = Held()
    heard: queue.Queue = queue.Queue()
    with writing(held) as running, triton.InferenceServerClient(running.target) as client:
        client.start_stream(lambda result, error: heard.put(error or result))
        for name, tokens in (("long", 40), ("short", 2)):
            said = {"max_tokens": tokens, "stream": True}
            client.async_stream_infer(MODEL, [texts("text_input", PROMPT)], request_id=name, parameters=said)
        until(lambda: known(running) == 2, "both texts to be known")
        # Enough for the one that is short to join, and to end.
        held.steps = 3
        held.go.set()
        held.go.clear()
        ended: list[str] = []
        while "short" not in ended:
            result = heard.get(timeout=PATIENCE_SECONDS)
            ended += [result.get_response().id] if parameter(result, "triton_final_response") else []
        assert ended == ["short"]
        held.go.set()
        while "long" not in ended:
            result = heard.get(timeout=PATIENCE_SECONDS)
            ended += [result.get_response().id] if parameter(result, "triton_final_response") else []
        client.stop_stream()


def test_a_sequence_is_a_session(running: Loopback, client: triton.InferenceServerClient) -> None:
    said = {"max_tokens": 5, "acclimate_recipe": "supervised"}
    first = client.infer(MODEL, [texts("text_input", PROMPT)], sequence_id="talk", sequence_start=True, parameters=said)
    assert parameter(first, "acclimate_session") == "talk"
    with Client(running.target) as own:
        view = own.get_session(MODEL, "talk")
        assert (view.recipe, view.requests) == ("supervised", 1)
        inputs = [texts("text_input", PROMPT)]
        client.infer(MODEL, inputs, sequence_id="talk", parameters={"max_tokens": 5})
        assert own.get_session(MODEL, "talk").requests == 2
        client.infer(MODEL, inputs, sequence_id="talk", sequence_end=True, parameters={"max_tokens": 5})
        assert not list(own.list_sessions(MODEL))
        with pytest.raises(InferenceServerException, match="does not exist"):
            client.infer(MODEL, inputs, sequence_id="talk")
        with pytest.raises(InferenceServerException, match="max_tokens"):
            client.infer(MODEL, inputs, sequence_id="new", sequence_start=True, parameters={"max_tokens": -4})
        assert not list(own.list_sessions(MODEL))


@pytest.mark.parametrize(
    ("inputs", "said", "match"),
    [
        ([texts("text_input", b"\xff\xfe")], {}, "not UTF-8: byte 0xff at 0"),
        ([texts("text_input", "")], {}, "prompt is empty"),
        ([texts("text_input", "a", "b")], {}, "send one text"),
        ([one("text_input", 1.0, "FP32", np.float32)], {}, "has to be BYTES"),
        ([one("stream", True, "BOOL", np.bool_)], {}, "no input 'text_input'"),
        ([texts("text_input", "a"), texts("bad_words", "b")], {}, "'bad_words' is unknown"),
        ([texts("text_input", "a")], {"max_tokens": "many"}, "max_tokens is 'many'"),
        ([texts("text_input", "a")], {"max_tokens": 10**9}, "generation.max_tokens"),
        ([texts("text_input", "a")], {"stream": 3}, "true or false"),
        ([texts("text_input", "a")], {"stop": ""}, "none of them empty"),
        ([texts("text_input", "a")], {"sampling_parameters": "[1]"}, "a JSON object"),
        ([texts("text_input", "a")], {"sampling_parameters": '{"temprature": 1}'}, "did you mean 'temperature'"),
        ([texts("text_input", "a")], {"acclimate_recipy": "tlm"}, "did you mean 'acclimate_recipe'"),
    ],
)
def test_what_cannot_be_asked_is_refused(running: Loopback, inputs: list, said: dict, match: str) -> None:
    with triton.InferenceServerClient(running.target) as client:
        with pytest.raises(InferenceServerException, match=match) as caught:
            client.infer(MODEL, inputs, parameters=said)
        assert "INVALID_ARGUMENT" in str(caught.value)
        heard: queue.Queue = queue.Queue()
        client.start_stream(lambda result, error: heard.put(error or result))
        client.async_stream_infer(MODEL, inputs, parameters=said)
        assert match.split("'")[0] in str(heard.get(timeout=PATIENCE_SECONDS))
        client.async_stream_infer(MODEL, [texts("text_input", "ok")], parameters={"max_tokens": 1})
        assert output(heard.get(timeout=PATIENCE_SECONDS)) is not None
        client.stop_stream()


def test_a_client_that_cancels_its_stream_frees_the_slots() -> None:
    held = Held()
    with writing(held) as running, triton.InferenceServerClient(running.target) as client:
        figures = running.service.generating.snapshot
        client.start_stream(lambda **_: None)
        said = {"max_tokens": 400, "stream": True, "temperature": 1.0}
        for _ in range(3):
            client.async_stream_infer(MODEL, [texts("text_input", PROMPT)], parameters=said)
        until(lambda: known(running) == 3, "the texts to be known")
        client.stop_stream(cancel_requests=True)
        held.go.set()
        until(lambda: figures()[0].slots_in_use == 0, "the slots to be free")
        assert figures()[0].texts == {"cancelled": 3}


def test_metadata_and_configuration_say_how_to_ask(running: Loopback, client: triton.InferenceServerClient) -> None:
    described = client.get_model_metadata(MODEL)
    first = described.inputs[0]
    assert (first.name, first.datatype, list(first.shape)) == ("text_input", "BYTES", [1])
    assert [(t.name, t.datatype) for t in described.outputs] == [("text_output", "BYTES")]
    config = client.get_model_config(MODEL).config
    assert config.model_transaction_policy.decoupled
    assert config.max_batch_size == 0
    assert [(t.name, t.optional) for t in config.input][:2] == [("text_input", False), ("stream", True)]
    assert client.is_model_ready(MODEL)
