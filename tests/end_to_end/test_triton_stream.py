"""An unmodified tritonclient on streams, with callbacks and with asyncio, and its asynchronous unary calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.client import Client
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from tests.end_to_end.daemons import Daemon
from tests.runtime.digits import picture

PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def frozen(bundle_path: Path) -> Iterator[OnnxEngine]:
    """The same bundle in this process, to compare with."""
    engine = OnnxEngine(read_bundle(bundle_path), OnnxOptions())
    yield engine
    engine.close()


@pytest.fixture
def remote(daemon: Daemon) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(daemon.target) as connected:
        yield connected


def inputs(images: np.ndarray, kind: Any = triton) -> list[Any]:
    tensor = kind.InferInput("image", list(images.shape), np_to_triton_dtype(images.dtype))
    tensor.set_data_from_numpy(images)
    return [tensor]


def number(result: Any, name: str) -> int:
    value: int = result.get_response().parameters[name].int64_param
    return value


def outcome(result: Any) -> str:
    word: str = result.get_response().parameters["acclimate_outcome"].string_param
    return word


class Stream:
    """A stream of the callback client, its replies in a queue."""

    def __init__(self, remote: triton.InferenceServerClient) -> None:
        self._remote = remote
        self._replies: Queue[tuple[Any, Any]] = Queue()

    def __enter__(self) -> Stream:
        self._remote.start_stream(lambda result, error: self._replies.put((result, error)))
        return self

    def __exit__(self, *error: object) -> None:
        self._remote.stop_stream()

    def send(self, images: np.ndarray, model: str = "digits", **options: Any) -> None:
        self._remote.async_stream_infer(model, inputs(images), **options)

    def reply(self) -> tuple[Any, Any]:
        return self._replies.get(timeout=PATIENCE_SECONDS)


def test_a_stream_of_requests_is_answered_in_order(remote: triton.InferenceServerClient, frozen: OnnxEngine) -> None:
    with Stream(remote) as stream:
        for turn in range(30):
            stream.send(picture(turn, 1 + turn % 3), request_id=str(turn))
        for turn in range(30):
            result, error = stream.reply()
            assert error is None
            assert result.get_response().id == str(turn)
            expected = frozen.frozen(picture(turn, 1 + turn % 3))
            np.testing.assert_array_equal(result.as_numpy("logits"), expected)


def test_a_sequence_on_a_stream_learns_and_errors_leave_it_alone(
    remote: triton.InferenceServerClient, client: Client, frozen: OnnxEngine
) -> None:
    images, chosen = picture(2, 16, "contrast"), {"acclimate_recipe": "tent"}
    with Stream(remote) as stream:
        stream.send(images, sequence_id=77, sequence_start=True, parameters=chosen)
        stream.send(images, sequence_id=77)
        stream.send(images, model="nowhere", request_id="lost")
        stream.send(images, sequence_id=78)
        stream.send(images, sequence_id=77, enable_empty_final_response=True)
        first, second, lost, stranger, third = (stream.reply() for _ in range(5))
        assert [outcome(result) for result, _ in (first, second, third)] == ["gathered", "applied", "gathered"]
        assert [number(result, "acclimate_version") for result, _ in (first, second, third)] == [0, 0, 1]
        np.testing.assert_array_equal(first[0].as_numpy("logits"), frozen.frozen(images))
        assert not np.array_equal(third[0].as_numpy("logits"), first[0].as_numpy("logits"))
        assert third[0].get_response().parameters["triton_final_response"].bool_param
        assert "nowhere" in str(lost[1])
        assert "does not exist" in str(stranger[1])
        assert client.get_session("digits", "77").updates == 1
        stream.send(images, sequence_id=77, sequence_end=True)
        stream.send(images, sequence_id=77, sequence_start=True)
        stream.send(images, sequence_id=77, sequence_end=True)
        replies = [stream.reply() for _ in range(3)]
        assert [error for _, error in replies] == [None] * 3
        assert [number(result, "acclimate_version") for result, _ in replies] == [1, 0, 0]


def test_min_version_and_budget_ride_on_a_request(remote: triton.InferenceServerClient, client: Client) -> None:
    images, chosen = picture(3, 32, "contrast"), {"acclimate_recipe": "tent"}
    first = remote.infer("digits", inputs(images), sequence_id="w", sequence_start=True, parameters=chosen)
    written = number(first, "acclimate_session_version")
    assert (outcome(first), written) == ("applied", 1)
    again = remote.infer("digits", inputs(images), sequence_id="w", parameters={"acclimate_min_version": written})
    assert number(again, "acclimate_version") == written
    with pytest.raises(InferenceServerException, match="not yet at 99") as refused:
        remote.infer("digits", inputs(images), sequence_id="w", parameters={"acclimate_min_version": 99})
    assert refused.value.status() == "StatusCode.FAILED_PRECONDITION"
    dear = remote.infer("digits", inputs(images), sequence_id="w", parameters={"acclimate_budget_ms": 1})
    assert outcome(dear) == "skipped:budget"
    assert client.get_session("digits", "w").skipped == {"budget": 1}
    client.delete_session("digits", "w")


def test_timeout_and_priority_are_taken(remote: triton.InferenceServerClient) -> None:
    images = picture(4, 1)
    for priority in (1, 2, 3, 9):
        remote.infer("digits", inputs(images), priority=priority, timeout=10_000_000)
    with pytest.raises(InferenceServerException, match="deadline") as late:
        remote.infer("digits", inputs(images), timeout=1)
    assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_strings_and_halves_are_refused_by_what_the_model_takes(remote: triton.InferenceServerClient) -> None:
    for images in (picture(5, 1).astype(np.float16), picture(5, 1).astype(str).astype(object)):
        with pytest.raises(InferenceServerException, match="the model takes UINT8") as refused:
            remote.infer("digits", inputs(images))
        assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_asynchronous_unary_calls(remote: triton.InferenceServerClient, frozen: OnnxEngine) -> None:
    replies: Queue[tuple[int, Any, Any]] = Queue()
    for turn in range(16):
        remote.async_infer(
            "digits",
            inputs(picture(turn, 2)),
            callback=lambda result, error, turn=turn: replies.put((turn, result, error)),
            client_timeout=PATIENCE_SECONDS,
        )
    for _ in range(16):
        turn, result, error = replies.get(timeout=PATIENCE_SECONDS)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("logits"), frozen.frozen(picture(turn, 2)))


async def _aio(target: str, frozen: OnnxEngine) -> None:
    async with triton_aio.InferenceServerClient(target) as remote:
        assert await remote.is_model_ready("digits")
        assert (await remote.get_model_config("digits", as_json=True))["config"]["name"] == "digits"
        answers = await asyncio.gather(*(remote.infer("digits", inputs(picture(n, 2), triton_aio)) for n in range(8)))
        for turn, result in enumerate(answers):
            np.testing.assert_array_equal(result.as_numpy("logits"), frozen.frozen(picture(turn, 2)))

        async def requests() -> AsyncIterator[dict[str, Any]]:
            for turn in range(12):
                yield {
                    "model_name": "digits" if turn != 5 else "nowhere",
                    "inputs": inputs(picture(turn, 2), triton_aio),
                    "request_id": str(turn),
                    "sequence_id": "aio",
                    "sequence_start": turn == 0,
                    "sequence_end": turn == 11,
                }

        seen = [reply async for reply in remote.stream_infer(requests())]
        assert [error is None for _, error in seen] == [turn != 5 for turn in range(12)]
        ids = [result.get_response().id for result, error in seen if error is None]
        assert ids == [str(turn) for turn in range(12) if turn != 5]
        with pytest.raises(InferenceServerException):
            await remote.infer("digits", inputs(picture(0), triton_aio), sequence_id="aio")


def test_the_asyncio_client(daemon: Daemon, frozen: OnnxEngine) -> None:
    asyncio.run(_aio(daemon.target, frozen))
