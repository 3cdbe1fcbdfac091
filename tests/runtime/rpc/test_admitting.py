"""What a client is told when there is no room: before its message is decoded, with pushback, and inference alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.clock import ManualClock
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.engines.reference_language import reference_language
from acclimate.runtime.rpc.entrance import model_of
from acclimate.runtime.scheduler.admission import Admission, AdmissionLimits, Pass
from acclimate.runtime.service_protocol import ServiceProtocol
from tests.polling import until
from tests.runtime.rpc.loopback import MODEL, Loopback, serving
from tests.runtime.rpc.test_stream import Conversation, message

WRITER = "writer"
INFER = "/inference.GRPCInferenceService/ModelInfer"


class Crowded:
    """The real service, behind an admission that has seen too much come, on a clock that stands still."""

    def __init__(self, service: ServiceProtocol) -> None:
        self._service = service
        self.clock = ManualClock(10.0)
        self.admission = Admission(AdmissionLimits(0.25, 0.002), self.clock)
        self.held: list[Pass] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    def crowd(self) -> None:
        """Let answers take ten milliseconds each, too much come, and more be under way than may be."""
        for _ in range(3):
            for _ in range(100):
                if self.admission.refuses("") is None and len(self.held) < 64:
                    self.held.append(self.admission.enter(""))
            for _ in range(10):
                self.clock.advance(0.01)
                self.held.pop().back()
            self.admission.refuses("")
        assert self.admission.overloaded
        assert self.admission.refuses("") is not None

    def clear(self) -> None:
        """Let everything that is under way be answered."""
        while self.held:
            self.held.pop().back()


@contextmanager
def crowded(languages: Mapping[str, LanguageEngine] | None = None) -> Iterator[tuple[Loopback, Crowded]]:
    made: list[Crowded] = []

    def wrap(service: ServiceProtocol) -> ServiceProtocol:
        made.append(Crowded(service))
        return cast(ServiceProtocol, made[0])

    with serving(wrap=wrap, languages=languages) as running:
        made[0].crowd()
        yield running, made[0]


def test_inference_is_refused_before_its_message_is_read() -> None:
    with crowded() as (running, _), running.channel() as channel:
        answered = running.service.snapshot().models[0].requests
        for payload in (message(1).SerializeToString(), b"\xff no message at all"):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(INFER)(payload, timeout=60)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            status = rpc_status.from_call(refused.value)
            info = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(info)
            assert info.reason == "OVERLOADED"
            assert int(dict(cast(Any, refused.value.trailing_metadata()))["grpc-retry-pushback-ms"]) >= 100
        assert running.service.snapshot().models[0].requests == answered, "the service never heard of them"
        assert running.rpc.stats.counts()["GRPCInferenceService/ModelInfer", "RESOURCE_EXHAUSTED"] == 2


def text(model: str = WRITER) -> oip.ModelInferRequest:
    """A prompt, as Triton's clients send it."""
    request = oip.ModelInferRequest(model_name=model, id="text")
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a text")
    request.parameters["max_tokens"].int64_param = 2
    return request


def test_texts_are_written_however_crowded_the_arrays_are() -> None:
    with (
        crowded({WRITER: reference_language("a text of words " * 20, name=WRITER)}) as (running, service),
        running.channel() as channel,
    ):
        infer, before = channel.unary_unary(INFER), service.admission.snapshot().under_way
        reply = oip.ModelInferResponse.FromString(infer(text().SerializeToString(), timeout=60))
        assert (reply.model_name, reply.id) == (WRITER, "text")
        conversation = Conversation(channel)
        conversation.send(text())
        assert next(conversation.call).infer_response.model_name == WRITER
        conversation.end()
        hidden = text().SerializeToString() + oip.ModelInferRequest(model_name=MODEL).SerializeToString()
        unnamed = message(1)
        for payload in (message(1).SerializeToString(), hidden, unnamed.SerializeToString()[2:], b"\xff"):
            with pytest.raises(grpc.RpcError) as refused:
                infer(payload, timeout=60)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "grpc-retry-pushback-ms" in dict(cast(Any, refused.value.trailing_metadata()))
        assert service.admission.snapshot().under_way == before
        running.loop.call_soon_threadsafe(service.clear)
        until(lambda: service.admission.snapshot().under_way == 0, "the room to be given back")
        infer(message(1).SerializeToString(), timeout=60)


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (oip.ModelInferRequest(model_name="m", id="x").SerializeToString(), "m"),
        (oip.ModelInferRequest(model_name="m" * 127).SerializeToString(), "m" * 127),
        (oip.ModelInferRequest(model_name="m" * 128).SerializeToString(), ""),
        (oip.ModelInferRequest(id="x").SerializeToString(), ""),
        (b"", ""),
        (b"\x0a", ""),
        (b"\x0a\x05ab", "ab"),
        (b"\x0a\x02\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_the_model_is_told_from_the_first_bytes_of_a_message(payload: bytes, name: str) -> None:
    assert model_of(payload) == name


def test_everything_else_is_served_meanwhile() -> None:
    with crowded() as (running, _), running.channel() as channel:
        healthy = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=60)
        assert health_pb2.HealthCheckResponse.FromString(healthy).status == 1
        asked = oip.ModelMetadataRequest(name=MODEL).SerializeToString()
        channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")(asked, timeout=60)


def test_requests_are_taken_again_once_there_is_room_and_give_their_room_back() -> None:
    with crowded() as (running, service), running.channel() as channel:
        running.loop.call_soon_threadsafe(service.clear)
        infer = channel.unary_unary(INFER)
        until(lambda: service.admission.snapshot().under_way == 0, "the room to be given back")
        for _ in range(5):
            infer(message(1).SerializeToString(), timeout=60)
        with pytest.raises(grpc.RpcError) as refused:
            infer(b"\xff no message at all", timeout=60)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        until(lambda: service.admission.snapshot().under_way == 0, "failures to give their room back as well")


def test_a_stream_waits_for_room_in_place_of_being_refused() -> None:
    with crowded() as (running, service), running.channel() as channel:
        before = service.admission.snapshot().under_way
        conversation = Conversation(channel)
        conversation.send(message(1), message(2))
        until(lambda: running.rpc.stats.streams()[0] == 1, "the stream to open")
        assert service.admission.snapshot().under_way == before
        running.loop.call_soon_threadsafe(service.clear)
        assert [reply.infer_response.id for reply in conversation.replies(2)] == ["1", "2"]
        conversation.end()
        until(lambda: service.admission.snapshot().under_way == 0, "its room to be given back")


def test_a_stream_that_waits_for_room_can_be_ended() -> None:
    with crowded() as (running, service), running.channel() as channel:
        conversation = Conversation(channel)
        conversation.send(message(1))
        until(lambda: running.rpc.stats.streams()[0] == 1, "the stream to open")
        conversation.call.cancel()
        until(lambda: running.rpc.stats.streams()[0] == 0, "the stream to close")
        running.loop.call_soon_threadsafe(service.clear)
        until(lambda: service.admission.snapshot().under_way == 0, "nothing to be held for it")
