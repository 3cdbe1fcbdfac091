"""Bad requests of every kind over the wire: the right status, and every session exactly as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.client import Client
from acclimate.v1 import session_service_pb2 as pb
from tests.end_to_end.daemons import Daemon
from tests.end_to_end.wire import INFER, SESSIONS, future, inference, send, twins
from tests.runtime.digits import picture

INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
TAKEN, FULL = grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.RESOURCE_EXHAUSTED
WRONG_STATE, UNKNOWN_RPC = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED
MINE = "models/digits/sessions/adapted"


@pytest.fixture(scope="module")
def channel(daemon: Daemon) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(daemon.target) as opened:
        yield opened


@pytest.fixture(scope="module", autouse=True)
def sessions(daemon: Daemon) -> None:
    """Bad requests go to the first; the second is spared them."""
    with Client(daemon.target) as client:
        twins(client, "adapted", "spared")


def infer(edit: Callable[[oip.ModelInferRequest], object]) -> tuple[str, oip.ModelInferRequest]:
    message = inference("adapted")
    edit(message)
    return INFER, message


def tensor(**changes: Any) -> tuple[str, oip.ModelInferRequest]:
    def edit(message: oip.ModelInferRequest) -> None:
        for name, value in changes.items():
            if name == "shape":
                del message.inputs[0].shape[:]
                message.inputs[0].shape.extend(value)
            elif name == "raw":
                message.raw_input_contents[0] = value
            else:
                setattr(message.inputs[0], name, value)

    return infer(edit)


def floats() -> tuple[str, oip.ModelInferRequest]:
    image = np.full((2, 1, 28, 28), np.nan, np.float32)
    return tensor(datatype="FP32", raw=image.tobytes())


def create(**given: Any) -> tuple[str, pb.CreateSessionRequest]:
    return SESSIONS + "CreateSession", pb.CreateSessionRequest(**({"parent": "models/digits"} | given))


def labels(*entries: dict[str, Any], name: str = MINE) -> tuple[str, pb.SendFeedbackRequest]:
    return SESSIONS + "SendFeedback", pb.SendFeedbackRequest(name=name, labels=entries)


def listing(**given: Any) -> tuple[str, pb.ListSessionsRequest]:
    return SESSIONS + "ListSessions", pb.ListSessionsRequest(**({"parent": "models/-"} | given))


CASES: dict[str, tuple[tuple[str, Any], grpc.StatusCode]] = {
    "unknown model": (infer(lambda m: setattr(m, "model_name", "letters")), MISSING),
    "unknown version": (infer(lambda m: setattr(m, "model_version", "9")), MISSING),
    "unknown session": ((INFER, inference("nobody")), MISSING),
    "unknown output": (infer(lambda m: m.outputs.add(name="probabilities")), INVALID),
    "unknown input": (tensor(name="picture"), INVALID),
    "wrong datatype": (tensor(datatype="INT8"), INVALID),
    "unknown datatype": (tensor(datatype="UINT9"), INVALID),
    "NaN": (floats(), INVALID),
    "wrong shape": (tensor(shape=[2, 28, 28, 1]), INVALID),
    "wrong rank": (tensor(shape=[2, 784]), INVALID),
    "a shape of another size": (tensor(shape=[3, 1, 28, 28]), INVALID),
    "a shape beyond all bounds": (tensor(shape=[2**62, 2**62, 28, 28]), INVALID),
    "a negative shape": (tensor(shape=[-2, 1, 28, 28]), INVALID),
    "no rows": (tensor(shape=[0, 1, 28, 28], raw=b""), INVALID),
    "one byte too few": (tensor(raw=picture(0, 2).tobytes()[:-1]), INVALID),
    "one byte too many": (tensor(raw=picture(0, 2).tobytes() + b"\0"), INVALID),
    "no tensor": (infer(lambda m: m.ClearField("inputs")), INVALID),
    "no contents": (infer(lambda m: m.ClearField("raw_input_contents")), INVALID),
    "an oversized message": (tensor(raw=b"\0" * 300_000), FULL),
    "a misspelt parameter": ((INFER, inference("adapted", acclimate_adapte=False)), INVALID),
    "a parameter of another type": ((INFER, inference("adapted", sequence_start=1)), INVALID),
    "a start without an id": ((INFER, inference(sequence_start=True)), INVALID),
    "another recipe at start": (
        (INFER, inference("adapted", sequence_start=True, acclimate_recipe="norm")),
        WRONG_STATE,
    ),
    "an unknown recipe at start": (
        (INFER, inference("fresh", sequence_start=True, acclimate_recipe="entropia")),
        INVALID,
    ),
    "bytes that are no message": ((INFER, b"\xff\xff\xff\xff"), INVALID),
    "create with an unknown recipe": (create(recipe="entropia"), INVALID),
    "create with an unknown parameter": (create(recipe="tent", recipe_parameters={"lrr": 1.0}), INVALID),
    "create with a parameter out of range": (create(recipe="tent", recipe_parameters={"lr": -1.0}), INVALID),
    "create with a NaN": (create(recipe="tent", recipe_parameters={"lr": float("nan")}), INVALID),
    "create with a bad id": (create(session_id="no spaces please"), INVALID),
    "create with a negative budget": (create(budget={"refill_ms_per_s": -1.0}), INVALID),
    "create what exists": (create(session_id="adapted"), TAKEN),
    "create for an unknown model": (create(parent="models/letters"), MISSING),
    "create for every model": (create(parent="models/-"), INVALID),
    "get what does not exist": ((SESSIONS + "GetSession", pb.GetSessionRequest(name=MINE + "x")), MISSING),
    "get a malformed name": ((SESSIONS + "GetSession", pb.GetSessionRequest(name="adapted")), INVALID),
    "reset what does not exist": ((SESSIONS + "ResetSession", pb.ResetSessionRequest(name=MINE + "x")), MISSING),
    "delete what does not exist": ((SESSIONS + "DeleteSession", pb.DeleteSessionRequest(name=MINE + "x")), MISSING),
    "list with a malformed token": (listing(page_token="?"), INVALID),  # noqa: S106
    "list with a foreign token": (listing(page_token="Zm9yZWlnbg=="), INVALID),  # noqa: S106
    "list with a negative size": (listing(page_size=-1), INVALID),
    "list an unknown model": (listing(parent="models/letters"), MISSING),
    "a label out of range": (labels({"request_id": "r0", "label": 10}), INVALID),
    "a row out of range": (labels({"request_id": "r0", "row": 8}), INVALID),
    "a good label beside a bad one": (
        labels({"request_id": "r0", "label": 1}, {"request_id": "r1", "label": 99}),
        INVALID,
    ),
    "a label twice": (labels({"request_id": "r0", "label": 1}, {"request_id": "r0", "label": 2}), INVALID),
    "no labels": (labels(), INVALID),
    "labels for nobody": (labels({"request_id": "r0"}, name=MINE + "x"), MISSING),
    "an unknown rpc": ((SESSIONS + "Obliterate", b""), UNKNOWN_RPC),
    "an unknown service": (("/acclimate.v9.Nothing/Get", b""), UNKNOWN_RPC),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_and_no_session_changes(case: str, channel: grpc.Channel, client: Client) -> None:
    (method, message), expected = CASES[case]
    before = list(client.list_sessions())
    assert send(channel, method, message) is expected
    assert list(client.list_sessions()) == before


def test_the_request_that_the_bad_ones_were_made_from_is_good(channel: grpc.Channel, client: Client) -> None:
    """Or they may have been refused for another reason than the one they are named after."""
    assert send(channel, INFER, inference("adapted", acclimate_adapt=False)) is grpc.StatusCode.OK
    assert send(channel, *labels({"request_id": "r0", "label": 1})) is grpc.StatusCode.OK
    assert send(channel, *create(session_id="good", recipe="tent", recipe_parameters={"lr": 0.1})) is grpc.StatusCode.OK
    client.delete_session("digits", "good")


def test_after_all_of_them_the_session_learns_on_as_its_twin_does(client: Client) -> None:
    assert future(client, "adapted") == future(client, "spared")
    assert client.get_session("digits", "adapted").updates == 5
