"""`ModelStreamInfer`: order, refusals that leave the stream alive, bounds, clients that vanish, draining."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any, cast

import grpc
import numpy as np
import pytest

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.service_protocol import ServiceProtocol
from acclimate.runtime.types import InferReply, InferRequest
from tests.polling import until
from tests.runtime.rpc.loopback import MODEL, Loopback, config, engine, samples, serving

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def message(number: int, rows: int = 1, **parameters: Any) -> oip.ModelInferRequest:
    array = samples(rows, number)
    request = oip.ModelInferRequest(
        model_name=MODEL,
        id=str(number),
        inputs=[{"name": "features", "datatype": "FP32", "shape": array.shape}],
        raw_input_contents=[array.tobytes()],
    )
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


class Conversation:
    """A stream that a test feeds by hand."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._sent: Queue[bytes | None] = Queue()
        rpc = channel.stream_stream(STREAM, response_deserializer=oip.ModelStreamInferResponse.FromString)
        self.call: Any = rpc(iter(self._sent.get, None), timeout=60)

    def send(self, *requests: oip.ModelInferRequest | bytes) -> None:
        for request in requests:
            self._sent.put(request if isinstance(request, bytes) else request.SerializeToString())

    def end(self) -> None:
        self._sent.put(None)

    def replies(self, count: int) -> list[oip.ModelStreamInferResponse]:
        return [next(self.call) for _ in range(count)]


@pytest.fixture
def conversation(loopback: Loopback) -> Iterator[Conversation]:
    with loopback.channel() as channel:
        yield Conversation(channel)


class Gate:
    """The real service, but answers wait at a gate, so that a test knows what is under way."""

    def __init__(self, service: ServiceProtocol) -> None:
        self._service = service
        self._open = asyncio.Event()
        self.entered: list[str] = []
        self.cancelled: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    def open(self) -> None:
        self._open.set()

    async def infer(self, request: InferRequest) -> InferReply:
        self.entered.append(request.id)
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.id)
            raise
        return await self._service.infer(request)


@contextmanager
def gated(**sections: Any) -> Iterator[tuple[Loopback, Gate, grpc.Channel]]:
    gates: list[Gate] = []

    def wrap(service: ServiceProtocol) -> ServiceProtocol:
        gates.append(Gate(service))
        return cast(ServiceProtocol, gates[0])

    settings = config().model_copy(update=sections)
    with serving(settings, wrap) as running, running.channel() as channel:
        yield running, gates[0], channel


def stream_limit(requests: int) -> dict[str, Any]:
    return {"open_inference": config().open_inference.model_copy(update={"stream_requests": requests})}


def test_replies_come_in_the_order_of_requests_of_unequal_work(conversation: Conversation) -> None:
    conversation.send(*(message(number, rows=1 + 31 * (number % 2)) for number in range(40)))
    conversation.end()
    replies = list(conversation.call)
    assert [reply.infer_response.id for reply in replies] == [str(number) for number in range(40)]
    assert not any(reply.error_message for reply in replies)
    for number, reply in enumerate(replies):
        expected = engine().frozen(samples(1 + 31 * (number % 2), number))
        given = np.frombuffer(reply.infer_response.raw_output_contents[0], np.float32).reshape(expected.shape)
        np.testing.assert_allclose(given, expected, rtol=1e-5)
    assert conversation.call.code() is grpc.StatusCode.OK


def test_a_refused_request_is_answered_and_the_stream_goes_on(conversation: Conversation, loopback: Loopback) -> None:
    nowhere = message(1)
    nowhere.model_name = "nowhere"
    conversation.send(message(0), nowhere, b"\xff\xff", message(2, sequence_id="nobody"), message(3))
    good, missing, malformed, session, last = conversation.replies(5)
    assert not good.error_message
    assert not last.error_message
    assert "nowhere" in missing.error_message
    assert (missing.infer_response.id, missing.infer_response.model_name) == ("1", "nowhere")
    told = [
        tuple(reply.infer_response.parameters[key].string_param for key in ("acclimate_code", "acclimate_reason"))
        for reply in (missing, malformed, session)
    ]
    assert told == [
        ("NOT_FOUND", "MODEL_NOT_FOUND"),
        ("INVALID_ARGUMENT", "MESSAGE_MALFORMED"),
        ("NOT_FOUND", "SESSION_NOT_FOUND"),
    ]
    conversation.end()
    assert list(conversation.call) == []
    _, counted = loopback.rpc.stats.streams()
    assert counted["NOT_FOUND"] >= 2


def test_a_defect_is_one_requests_and_hides_its_details() -> None:
    def wrap(service: ServiceProtocol) -> ServiceProtocol:
        broken = Gate(service)

        async def infer(request: InferRequest) -> InferReply:
            if request.id == "0":
                raise ValueError("secret")
            return await service.infer(request)

        broken.infer = infer  # type: ignore[method-assign]
        return cast(ServiceProtocol, broken)

    with serving(wrap=wrap) as running, running.channel() as channel:
        conversation = Conversation(channel)
        conversation.send(message(0), message(1))
        first, second = conversation.replies(2)
        assert "secret" not in first.error_message
        assert first.infer_response.parameters["acclimate_code"].string_param == "INTERNAL"
        assert not second.error_message


def test_no_more_requests_are_under_way_than_the_limit() -> None:
    with gated(**stream_limit(3)) as (running, gate, channel):
        conversation = Conversation(channel)
        conversation.send(*(message(number) for number in range(9)))
        until(lambda: len(gate.entered) == 3, "three requests under way")
        running.loop.call_soon_threadsafe(gate.open)
        assert [reply.infer_response.id for reply in conversation.replies(9)] == [str(n) for n in range(9)]
        assert gate.entered == [str(n) for n in range(9)]


def test_what_a_vanished_client_has_asked_for_is_given_up() -> None:
    with gated() as (running, gate, channel):
        conversation = Conversation(channel)
        conversation.send(*(message(number) for number in range(4)))
        until(lambda: len(gate.entered) == 4, "four requests under way")
        assert running.rpc.stats.streams()[0] == 1
        conversation.call.cancel()
        until(lambda: sorted(gate.cancelled) == ["0", "1", "2", "3"], "all of them to be given up")
        until(lambda: running.rpc.stats.streams()[0] == 0, "the stream to be gone")
        running.loop.call_soon_threadsafe(gate.open)
        assert running.service.snapshot().models[0].samples == 0


def test_requests_queued_when_the_client_vanishes_reach_no_session() -> None:
    """With the real queue: a batch is held up, the stream behind it is cancelled, its session learns nothing."""
    with serving() as running, running.channel() as channel:
        conversation = Conversation(channel)
        conversation.send(message(0, sequence_id="left", sequence_start=True))
        conversation.replies(1)
        conversation.send(*(message(number, rows=32, sequence_id="left") for number in range(1, 60)))
        conversation.call.cancel()
        until(lambda: running.rpc.stats.streams()[0] == 0, "the stream to be gone")
        until(lambda: running.service.snapshot().queue_depth == 0, "an empty queue")


def test_a_sequence_may_start_right_behind_one_of_the_same_id_that_ends(
    conversation: Conversation, loopback: Loopback
) -> None:
    requests = []
    for turn in range(5):
        requests += [
            message(10 * turn, sequence_id="again", sequence_start=True),
            message(10 * turn + 1, sequence_id="again"),
            message(10 * turn + 2, sequence_id="again", sequence_end=True),
        ]
    before = loopback.service.snapshot().models[0]
    conversation.send(*requests)
    replies = conversation.replies(len(requests))
    assert [reply.error_message for reply in replies] == [""] * len(requests)
    after = loopback.service.snapshot().models[0]
    assert after.sessions_created - before.sessions_created == 5
    assert after.sessions_deleted - before.sessions_deleted == 5


def test_the_empty_final_response_is_answered_in_the_only_one(conversation: Conversation) -> None:
    conversation.send(message(0, triton_enable_empty_final_response=True), message(1))
    asked, plain = conversation.replies(2)
    assert asked.infer_response.parameters["triton_final_response"].bool_param
    assert "triton_final_response" not in plain.infer_response.parameters


@pytest.mark.parametrize("waiting", [0, 3])
def test_draining_answers_what_was_read_and_ends_the_stream(waiting: int) -> None:
    with gated() as (running, gate, channel):
        conversation = Conversation(channel)
        conversation.send(*(message(number) for number in range(waiting)))
        until(lambda: len(gate.entered) == waiting and running.rpc.stats.streams()[0] == 1, "the stream to stand")
        on_loop(running, running.rpc.drain)
        running.loop.call_soon_threadsafe(gate.open)
        assert [reply.infer_response.id for reply in conversation.replies(waiting)] == [str(n) for n in range(waiting)]
        with pytest.raises(grpc.RpcError) as ended:
            next(conversation.call)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        late = Conversation(channel)
        with pytest.raises(grpc.RpcError, match="the daemon is draining"):
            next(late.call)


def on_loop(running: Loopback, call: Callable[[], None]) -> None:
    async def do() -> None:
        call()

    running.run(do())
