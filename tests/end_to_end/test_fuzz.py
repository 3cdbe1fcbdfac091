"""Thousands of mutated messages on the wire: no internal error, no dead daemon, no session touched."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.oip.v1 import model_repository_pb2 as repository
from acclimate.runtime.client import Client
from acclimate.runtime.types import SessionView
from acclimate.v1 import session_service_pb2 as pb
from tests.end_to_end.daemons import Daemon
from tests.end_to_end.wire import INFER, METHODS, SESSIONS, future, inference, send, twins

DEFECTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNAVAILABLE}


def text(value: str) -> repository.ModelRepositoryParameter:
    return repository.ModelRepositoryParameter(string_param=value)


SEEDS = [
    (INFER, inference().SerializeToString()),
    (INFER, inference("ghost", sequence_start=True, sequence_end=True).SerializeToString()),
    (INFER, inference("ghost", acclimate_adapt=False).SerializeToString()),
    (SESSIONS + "CreateSession", pb.CreateSessionRequest(parent="models/x", session_id="ghost").SerializeToString()),
    (SESSIONS + "GetSession", pb.GetSessionRequest(name="models/digits/sessions/ghost").SerializeToString()),
    (SESSIONS + "ListSessions", pb.ListSessionsRequest(parent="models/-", page_size=3).SerializeToString()),
    (
        SESSIONS + "SendFeedback",
        pb.SendFeedbackRequest(name="models/digits/sessions/ghost", labels=[{"request_id": "r"}]).SerializeToString(),
    ),
    ("/inference.GRPCInferenceService/ModelStreamInfer", inference("ghost").SerializeToString()),
    ("/inference.GRPCInferenceService/ModelStreamInfer", inference(priority=1, timeout=9).SerializeToString()),
    (
        "/inference.GRPCInferenceService/RepositoryModelLoad",
        repository.RepositoryModelLoadRequest(
            model_name="ghost", parameters={"config": text('{"parameters": {"acclimate_sessions": "drop"}}')}
        ).SerializeToString(),
    ),
    (
        "/inference.GRPCInferenceService/RepositoryModelUnload",
        repository.RepositoryModelUnloadRequest(
            model_name="ghost", parameters={"acclimate_sessions": text("drop")}
        ).SerializeToString(),
    ),
    ("/inference.GRPCInferenceService/ModelMetadata", oip.ModelMetadataRequest(name="digits").SerializeToString()),
]


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, bytes]:
    """A good message with bytes flipped, cut, doubled or inserted, where its structure is: in the first 200 bytes."""
    method, payload = draw(st.sampled_from(SEEDS))
    mutated = bytearray(payload)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(200, len(mutated))))
        match draw(st.sampled_from(["flip", "set", "cut", "insert", "double"])):
            case "flip" if at < len(mutated):
                mutated[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if at < len(mutated):
                mutated[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
            case "cut":
                del mutated[at : at + draw(st.integers(1, 64))]
            case "insert":
                mutated[at:at] = draw(st.binary(min_size=1, max_size=16))
            case _:
                mutated[at:at] = mutated[at : at + 32]
    return method, bytes(mutated)


@pytest.fixture(scope="module")
def channel(daemon: Daemon) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(daemon.target) as opened:
        yield opened


@pytest.fixture(scope="module")
def bystander(daemon: Daemon) -> Iterator[SessionView]:
    """A session that nobody writes to, as it was before the storm."""
    with Client(daemon.target) as client:
        twins(client, "bystander")
        yield client.get_session("digits", "bystander")


@settings(max_examples=2000)
@given(mutations())
def test_no_mutation_of_a_good_message_is_an_internal_error(
    channel: grpc.Channel, bystander: SessionView, mutation: tuple[str, bytes]
) -> None:
    assert send(channel, *mutation) not in DEFECTS


@settings(max_examples=800)
@given(st.sampled_from(METHODS), st.binary(max_size=300))
def test_no_random_bytes_are_an_internal_error(
    channel: grpc.Channel, bystander: SessionView, method: str, payload: bytes
) -> None:
    assert send(channel, method, payload) not in DEFECTS


def test_the_daemon_lives_on_and_the_bystander_is_as_it_was(
    daemon: Daemon, client: Client, bystander: SessionView
) -> None:
    assert daemon.process.poll() is None
    # A stream answers where other rpcs fail, so its defects are counted.
    assert daemon.metrics()["acclimate_inference_stream_requests_total", (("code", "INTERNAL"),)] == 0
    assert client.get_session("digits", "bystander") == bystander
    twins(client, "born-after-the-storm")
    assert future(client, "bystander") == future(client, "born-after-the-storm")
