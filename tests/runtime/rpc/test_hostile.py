"""Bad input gets a clear refusal with the right status, and the server lives on with its sessions unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.rpc.server import methods
from acclimate.v1 import session_service_pb2 as pb
from acclimate.v1 import session_service_pb2_grpc
from tests.runtime.rpc.loopback import FEATURES, MODEL, Loopback, config, samples, serving

SMALL_LIMIT = 2**16
OIP = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module")
def channel(loopback: Loopback) -> Iterator[grpc.Channel]:
    with loopback.channel() as opened:
        yield opened


def call(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    reply: bytes = channel.unary_unary(method)(request, timeout=30)
    return reply


def infer(channel: grpc.Channel, message: oip.ModelInferRequest) -> oip.ModelInferResponse:
    return oip.ModelInferResponse.FromString(call(channel, OIP + "ModelInfer", message.SerializeToString()))


def good(**changes: Any) -> oip.ModelInferRequest:
    array = samples()
    message = oip.ModelInferRequest(
        model_name=MODEL,
        inputs=[{"name": "features", "datatype": "FP32", "shape": array.shape}],
        raw_input_contents=[array.tobytes()],
    )
    message.MergeFrom(oip.ModelInferRequest(**changes))
    return message


def broken(edit: Callable[[oip.ModelInferRequest], object]) -> oip.ModelInferRequest:
    message = good()
    edit(message)
    return message


def set_raw(message: oip.ModelInferRequest, array: np.ndarray[Any, np.dtype[Any]]) -> None:
    message.raw_input_contents[0] = array.tobytes()


def with_nan() -> np.ndarray[Any, np.dtype[np.float32]]:
    array = samples()
    array[1, 2] = np.nan
    return array


CASES: dict[str, tuple[Callable[[oip.ModelInferRequest], object], str]] = {
    "unknown model": (lambda m: setattr(m, "model_name", "x" * 512), "NOT_FOUND"),
    "model of a name without end": (lambda m: setattr(m, "model_name", "x" * 20_000), "INVALID_ARGUMENT"),
    "unknown datatype": (lambda m: setattr(m.inputs[0], "datatype", "é" * 5_000), "INVALID_ARGUMENT"),
    "wrong datatype": (lambda m: setattr(m.inputs[0], "datatype", "INT32"), "INVALID_ARGUMENT"),
    "strings": (lambda m: setattr(m.inputs[0], "datatype", "BYTES"), "INVALID_ARGUMENT"),
    "wrong name": (lambda m: setattr(m.inputs[0], "name", "n" * 20_000), "INVALID_ARGUMENT"),
    "wrong shape": (lambda m: m.inputs[0].shape.__setitem__(0, 4), "INVALID_ARGUMENT"),
    "negative shape": (lambda m: m.inputs[0].shape.__setitem__(0, -3), "INVALID_ARGUMENT"),
    "overflowing shape": (lambda m: m.inputs[0].shape.extend([2**31 - 1] * 9), "INVALID_ARGUMENT"),
    "scalar": (lambda m: m.inputs[0].ClearField("shape"), "INVALID_ARGUMENT"),
    "short bytes": (lambda m: set_raw(m, samples(1)), "INVALID_ARGUMENT"),
    "not a number": (lambda m: set_raw(m, with_nan()), "INVALID_ARGUMENT"),
    "mixed contents": (lambda m: m.inputs[0].contents.fp32_contents.append(1), "INVALID_ARGUMENT"),
    "no inputs": (lambda m: m.ClearField("inputs"), "INVALID_ARGUMENT"),
    "unknown parameter": (lambda m: m.parameters["acclimate_adpt"].CopyFrom(oip.InferParameter(bool_param=True)),
                          "INVALID_ARGUMENT"),
    "empty parameter": (lambda m: m.parameters["priority"].CopyFrom(oip.InferParameter()), "INVALID_ARGUMENT"),
    "session that is not there": (
        lambda m: m.parameters["sequence_id"].CopyFrom(oip.InferParameter(string_param="s" * 16_000)), "NOT_FOUND"),
    "session of a name without end": (
        lambda m: m.parameters["sequence_id"].CopyFrom(oip.InferParameter(string_param="s" * 20_000)),
        "INVALID_ARGUMENT"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_bad_request_is_refused_with_a_reason(case: str, channel: grpc.Channel, loopback: Loopback) -> None:
    before = loopback.service.snapshot().models[0].samples
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, broken(CASES[case][0]))
    assert caught.value.code().name == CASES[case][1]
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "acclimate"
    assert info.reason.isupper()
    assert len(caught.value.details()) <= 480
    assert infer(channel, good()).outputs[0].shape[0] == 3
    assert loopback.service.snapshot().models[0].samples == before + 3


def test_a_wrong_field_is_named_in_bad_request(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, broken(lambda m: m.inputs[0].shape.__setitem__(0, -3)))
    violations = error_details_pb2.BadRequest()
    assert rpc_status.from_call(caught.value).details[1].Unpack(violations)
    assert violations.field_violations[0].field == "shape"
    assert "-3" in violations.field_violations[0].description


def test_typed_contents_are_answered_in_kind(channel: grpc.Channel) -> None:
    message = oip.ModelInferRequest(
        model_name=MODEL,
        inputs=[{"name": "features", "datatype": "FP32", "shape": [1, FEATURES],
                 "contents": {"fp32_contents": samples(1).ravel().tolist()}}],
    )  # fmt: skip
    reply = infer(channel, message)
    one = good()
    one.inputs[0].shape[0] = 1
    set_raw(one, samples(1))
    raw = infer(channel, one)
    expected = np.frombuffer(raw.raw_output_contents[0], np.float32)
    np.testing.assert_array_equal(np.array(reply.outputs[0].contents.fp32_contents, np.float32), expected)
    assert not reply.raw_output_contents


def test_an_oversized_message_is_refused_and_the_next_served() -> None:
    with serving(config(max_message_bytes=SMALL_LIMIT)) as small, small.channel() as channel:
        huge = good()
        huge.raw_input_contents[0] = bytes(SMALL_LIMIT + 1)
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel, huge)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert infer(channel, good()).outputs[0].name == "logits"


RPCS = [f"{OIP}{name.partition('/')[2]}" for name in methods() if name.startswith("GRPC")]
RPCS += [f"/acclimate.v1.{name}" for name in methods() if not name.startswith(("GRPC", "SessionService/Watch"))]
HARMLESS = {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION"}


@pytest.mark.parametrize("method", RPCS)
@given(payload=st.binary(max_size=64))
@settings(max_examples=25)
def test_no_bytes_whatever_are_an_internal_error(method: str, payload: bytes, channel: grpc.Channel) -> None:
    try:
        call(channel, method, payload)
    except grpc.RpcError as error:
        assert error.code().name in HARMLESS, error  # type: ignore[attr-defined]


PARAMETERS = st.dictionaries(
    st.sampled_from(["sequence_id", "sequence_start", "sequence_end", "timeout", "acclimate_adapt",
                     "acclimate_recipe", "priority", "headers", "acclimate_x", ""]),
    st.one_of(
        st.builds(oip.InferParameter, bool_param=st.booleans()),
        st.builds(oip.InferParameter, int64_param=st.integers(0, 3)),
        st.builds(oip.InferParameter, string_param=st.sampled_from(["", "a", "eata", "../b", "\x00"])),
        st.builds(oip.InferParameter, double_param=st.floats()),
        st.just(oip.InferParameter()),
    ),
)  # fmt: skip


@given(parameters=PARAMETERS, shape=st.lists(st.integers(-2, 7), max_size=3), blob=st.binary(max_size=120))
def test_no_combination_of_parameters_is_an_internal_error(
    parameters: dict[str, oip.InferParameter], shape: list[int], blob: bytes, channel: grpc.Channel
) -> None:
    message = oip.ModelInferRequest(
        model_name=MODEL, parameters=parameters, raw_input_contents=[blob],
        inputs=[{"name": "features", "datatype": "FP32", "shape": shape}],
    )  # fmt: skip
    try:
        infer(channel, message)
    except grpc.RpcError as error:
        assert error.code().name in HARMLESS | {"FAILED_PRECONDITION", "DEADLINE_EXCEEDED"}, error  # type: ignore[attr-defined]


def test_sessions_refuse_what_makes_no_sense(channel: grpc.Channel) -> None:
    stub = session_service_pb2_grpc.SessionServiceStub(channel)
    parent, none = f"models/{MODEL}", f"models/{MODEL}/sessions/none"
    created: list[dict[str, Any]] = [
        {"parent": "toy"},
        {"parent": parent, "recipe": "magic"},
        {"parent": parent, "recipe_parameters": {"lr": float("nan")}},
        {"parent": parent, "recipe_parameters": {"rate": 1}},
        {"parent": parent, "session_id": "../x"},
        {"parent": parent, "session_id": ""},
        {"parent": parent, "budget": {"refill_ms_per_s": -1.0}},
    ]
    cases: list[tuple[Any, Any, str]] = [
        *((stub.CreateSession, pb.CreateSessionRequest(**fields), "INVALID_ARGUMENT") for fields in created),
        (stub.CreateSession, pb.CreateSessionRequest(parent="models/nowhere"), "NOT_FOUND"),
        (stub.GetSession, pb.GetSessionRequest(name=none), "NOT_FOUND"),
        (stub.ResetSession, pb.ResetSessionRequest(name=none), "NOT_FOUND"),
        (stub.DeleteSession, pb.DeleteSessionRequest(name=none), "NOT_FOUND"),
        (stub.ListSessions, pb.ListSessionsRequest(parent=parent, page_size=-1), "INVALID_ARGUMENT"),
        (stub.ListSessions, pb.ListSessionsRequest(parent=parent, page_token="!!"), "INVALID_ARGUMENT"),  # noqa: S106
        (stub.SendFeedback, pb.SendFeedbackRequest(name=none, labels=[{}]), "NOT_FOUND"),
    ]
    for rpc, request, code in cases:
        with pytest.raises(grpc.RpcError) as caught:
            rpc(request, timeout=30)
        assert caught.value.code().name == code, request
