"""The benchmarks' client on a plain socket: the real server answers it as it answers grpcio's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from acclimate.oip.v1 import inference_pb2 as oip
from benchmarks._http2 import Connection, http2
from benchmarks._load_generator import INFER
from benchmarks._load_http2 import saturated
from tests.runtime.rpc.loopback import FEATURES, MODEL, Loopback, serving


@pytest.fixture(scope="module")
def daemon() -> Iterator[Loopback]:
    with serving() as up:
        yield up


@pytest.fixture
def wire(daemon: Loopback) -> Iterator[Connection]:
    with http2(daemon.target, INFER) as connection:
        yield connection


def message(model: str = MODEL, padded: int = 0) -> bytes:
    """A request, with as many parameters that mean nothing as make it more than so many times 16,000 bytes long."""
    inputs = np.ones((1, FEATURES), np.float32)
    tensor = {"name": "features", "datatype": "FP32", "shape": inputs.shape}
    request = oip.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[inputs.tobytes()])
    for number in range(padded):
        request.parameters[f"padding-{number}"].string_param = "x" * 16_000
    return request.SerializeToString()


def ended(wire: Connection, calls: int) -> list[tuple[int, bool]]:
    found: list[tuple[int, bool]] = []
    while len(found) < calls:
        found += wire.ended()
    return found


def test_calls_are_answered_and_counted_like_any_other(daemon: Loopback, wire: Connection) -> None:
    before = daemon.rpc.stats.counts()["GRPCInferenceService/ModelInfer", "OK"]
    calls = [wire.call(message()) for _ in range(3)]
    wire.send(b"".join(begun for _, begun in calls))
    assert sorted(ended(wire, 3)) == [(number, True) for number, _ in calls]
    assert daemon.rpc.stats.counts()["GRPCInferenceService/ModelInfer", "OK"] == before + 3


def test_a_refused_call_is_none_that_was_answered_well(wire: Connection) -> None:
    (bad, first), (good, second) = wire.call(message("nobody")), wire.call(message())
    wire.send(first + second)
    assert dict(ended(wire, 2)) == {bad: False, good: True}


def test_a_message_of_several_frames_arrives_whole(wire: Connection) -> None:
    number, begun = wire.call(message(padded=3))
    wire.send(begun)
    assert ended(wire, 1) == [(number, True)]


def test_more_than_the_connection_has_room_for_waits_until_it_has(wire: Connection) -> None:
    load = saturated(wire, [message(padded=1)], in_flight=32, seconds=0.5)
    assert load.codes["OK"] == load.codes.total() == len(load.accepted) > 10


def test_what_never_fits_says_so(wire: Connection) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        wire.has_room(2**31)
