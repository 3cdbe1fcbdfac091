"""Requests that hold too much of something, refused by the name of the field before a servicer sees them."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.rpc.limits import MessageLimits, check
from acclimate.v1 import session_pb2
from acclimate.v1 import session_service_pb2 as pb
from tests.runtime.rpc.loopback import Loopback, config, serving

LIMITS = MessageLimits(max_tensors=3, max_parameters=2, max_name_length=10, max_parameter_bytes=5)
LONG = "n" * 11


def infer(**fields: Any) -> oip.ModelInferRequest:
    return oip.ModelInferRequest(**fields)


def parameters(**values: str) -> dict[str, oip.InferParameter]:
    return {name: oip.InferParameter(string_param=value) for name, value in values.items()}


CASES = {
    "a long model name": (infer(model_name=LONG), "model_name has 11 characters"),
    "a long tensor name": (infer(inputs=[{"name": LONG}]), "inputs.name has 11 characters"),
    "a long output name": (infer(outputs=[{"name": "a"}, {"name": LONG}]), "outputs.name has 11 characters"),
    "many inputs": (infer(inputs=[{}] * 4), "inputs has 4 entries; at most 3"),
    "many outputs": (infer(outputs=[{}] * 4), "outputs has 4 entries"),
    "many blobs": (infer(raw_input_contents=[b""] * 4), "raw_input_contents has 4 entries"),
    "many parameters": (infer(parameters=parameters(a="", b="", c="")), "parameters has 3 entries; at most 2"),
    "a long parameter": (infer(parameters=parameters(a="é" * 3)), r"parameters\['a'\].string_param has 6 bytes"),
    "a long parameter's name": (infer(parameters=parameters(**{LONG: ""})), "parameters has 11 characters in a key"),
    "parameters of a tensor": (infer(inputs=[{"parameters": parameters(a="", b="", c="")}]), "inputs.parameters has 3"),
    "a long session name": (pb.GetSessionRequest(name=LONG), r"name has 11 .*limits\.max_name_length"),
    "many recipe parameters": (pb.CreateSessionRequest(recipe_parameters={"a": 1, "b": 2, "c": 3}), "recipe_param"),
    "many tensors of a seed": (
        pb.CreateSessionRequest(seed=session_pb2.Seed(tensors=[{}] * 4)),
        "seed.tensors has 4 entries",
    ),
    "a long request id": (pb.SendFeedbackRequest(labels=[{"request_id": LONG}]), "labels.request_id has 11"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_too_much_is_named_with_its_limit(case: str) -> None:
    message, expected = CASES[case]
    with pytest.raises(InvalidArgument, match=expected) as caught:
        check(message, LIMITS, message.ByteSize())
    assert caught.value.reason == "LIMIT_EXCEEDED"
    assert {"field", "given", "limit"} <= caught.value.metadata.keys()


def test_what_is_just_enough_passes() -> None:
    for message in (
        infer(
            model_name="n" * 10,
            inputs=[{"contents": {"fp32_contents": [1.0] * 100, "bytes_contents": [b"x" * 100] * 9}}] * 3,
            parameters=parameters(a="x" * 5, b=""),
        ),
        pb.SendFeedbackRequest(name="n", labels=[{"request_id": "r"}] * 100),
    ):
        check(message, LIMITS, message.ByteSize())


FEW = MessageLimits(max_tensors=8, max_parameters=4, max_name_length=15, max_parameter_bytes=15, max_text_bytes=15)


@pytest.mark.parametrize("limits", [LIMITS, FEW, MessageLimits(1, 1, 1, 1, 1)])
def test_what_is_too_small_to_be_walked_holds_nothing_that_is_too_much(limits: MessageLimits) -> None:
    size = limits.harmless_bytes
    keys = [chr(ord("a") + number) for number in range(size)]
    densest = [
        *(infer(parameters={key: {} for key in ["", *keys][:count]}) for count in range(size)),
        *(infer(model_name="n" * count) for count in range(size)),
        *(infer(inputs=[{}] * count) for count in range(size)),
        *(infer(raw_input_contents=[b""] * count) for count in range(size)),
        *(pb.CreateSessionRequest(recipe_parameters=dict.fromkeys(["", *keys][:count], 0.0)) for count in range(size)),
    ]
    harmless = [message for message in densest if message.ByteSize() <= size]
    assert harmless
    for message in harmless:
        # Of no size that says anything, so that it is walked.
        check(message, limits, size + 10_000)


def test_contents_do_not_count_as_what_could_be_too_much_but_their_number_does() -> None:
    one = infer(parameters=parameters(a="", b="", c=""), raw_input_contents=[b"x" * 1000])
    many = infer(raw_input_contents=[b""] * 4)
    for message, expected in ((one, "parameters has 3 entries"), (many, "raw_input_contents has 4 entries")):
        with pytest.raises(InvalidArgument, match=expected):
            check(message, LIMITS, message.ByteSize())


@pytest.fixture(scope="module")
def small():
    with serving(config().model_copy(update={"limits": config().limits.model_copy(update={"max_tensors": 3})})) as up:
        yield up


def test_over_the_wire_it_is_an_invalid_argument_with_a_field(small: Loopback) -> None:
    with small.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        payload = infer(inputs=[{}] * 4).SerializeToString()
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(payload, timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    bad = error_details_pb2.BadRequest()
    details = rpc_status.from_call(caught.value).details
    assert any(detail.Unpack(bad) for detail in details if detail.Is(bad.DESCRIPTOR))
    assert bad.field_violations[0].field == "inputs"


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ([(f"x-{n}", "v") for n in range(70)], "metadata: 7"),
        ([("x-long", "v" * 17_000)], "metadata bytes: 17"),
    ],
)
def test_too_much_metadata_is_refused_for_every_kind_of_rpc(small: Loopback, metadata, field: str) -> None:
    with small.channel(max_metadata_size=2**17) as channel:
        for call in (
            channel.unary_unary("/acclimate.v1.ServerService/GetServerInfo"),
            channel.unary_stream("/acclimate.v1.SessionService/WatchSessions"),
            channel.unary_unary("/grpc.health.v1.Health/Check"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                reply = call(b"", timeout=30, metadata=metadata)
                list(reply)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert str(caught.value.details()).startswith(field)
            assert "limits.max_metadata" in caught.value.details()
