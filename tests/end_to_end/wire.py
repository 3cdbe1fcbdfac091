"""Raw messages to the daemon, and twin sessions, to see whether a message to one of them changed anything."""

from __future__ import annotations

from typing import Any

import grpc

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.client import Client
from tests.runtime.digits import picture

INFER = "/inference.GRPCInferenceService/ModelInfer"
SESSIONS = "/acclimate.v1.SessionService/"


def send(channel: grpc.Channel, method: str, message: Any, timeout: float = 30.0) -> grpc.StatusCode:
    """Send a message, or bytes as they are, and return the status."""
    payload = message if isinstance(message, bytes) else message.SerializeToString()
    try:
        channel.unary_unary(method)(payload, timeout=timeout)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def inference(session: str | None = None, **parameters: Any) -> oip.ModelInferRequest:
    """A request that would be answered."""
    image = picture(0, 2)
    message = oip.ModelInferRequest(
        model_name="digits",
        inputs=[{"name": "image", "datatype": "UINT8", "shape": image.shape}],
        raw_input_contents=[image.tobytes()],
    )
    if session is not None:
        message.parameters["sequence_id"].string_param = session
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(message.parameters[name], kind, value)
    return message


def twins(client: Client, *names: str) -> None:
    """Sessions with the same past: adapted twice, and with samples gathered for a third step."""
    for name in names:
        session = client.create_session("digits", name, recipe="tent", recipe_parameters={"batch_rows": 16})
        for turn in range(5):
            session.predict(picture(turn, 8), request_id=f"r{turn}")


def future(client: Client, name: str) -> list[bytes]:
    """What a session answers from now on, as it goes on learning: equal for two only if all of their state is."""
    session = client.session("digits", name)
    return [session.predict(picture(100 + turn, 8)).logits.tobytes() for turn in range(5)]
