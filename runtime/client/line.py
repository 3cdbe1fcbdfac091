"""Requests and answers over one `ModelStreamInfer`: told apart by id, asked again over a new stream when one breaks.

A request that was under way when its stream broke is sent again under its id, with `acclimate_resent`, by which a
session that has answered it before knows it again: it is answered twice, and learnt from once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.client.calling import Deadline
from acclimate.runtime.client.channel import OIP_SERVICE
from acclimate.runtime.client.errors import ClientError
from acclimate.runtime.rpc import convert_oip
from acclimate.runtime.types import Scalar

PATH = f"/{OIP_SERVICE}/ModelStreamInfer"
RESENT = "acclimate_resent"
RETRY_AFTER = "acclimate_retry_after_ms"


def stream(channel: Any) -> Any:
    """The callable for ModelStreamInfer."""
    return channel.stream_stream(
        PATH,
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelStreamInferResponse.FromString,
    )


def again(request: oip.ModelInferRequest) -> oip.ModelInferRequest:
    """A request that may have been done before; only sessions remember."""
    if "sequence_id" not in request.parameters:
        return request
    copy = oip.ModelInferRequest()
    copy.CopyFrom(request)
    copy.parameters[RESENT].bool_param = True
    return copy


def timed(request: oip.ModelInferRequest, deadline: Deadline) -> None:
    """Tell the daemon for how long the answer is of use, unless the request says so already."""
    if "timeout" not in request.parameters:
        request.parameters["timeout"].int64_param = max(1, round(deadline.left * 1e6))


def refusal(reply: oip.ModelStreamInferResponse) -> ClientError | None:
    """Why a request was refused, if it was."""
    if not reply.error_message:
        return None
    said: Mapping[str, Scalar] = {
        key: convert_oip.scalar(key, value) for key, value in reply.infer_response.parameters.items()
    }
    after = said.get(RETRY_AFTER)
    return ClientError(
        str(said.get("acclimate_code", "UNKNOWN")),
        str(said.get("acclimate_reason", "")),
        reply.error_message,
        retry_after_seconds=None if after is None else float(after) / 1e3,
    )


def passing(error: ClientError, pause: float, deadline: Deadline) -> float | None:
    """Seconds after which a request that was refused unbegun is worth sending again, or None."""
    if error.retry_after_seconds is None or error.code not in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"):
        return None
    wait = max(pause, error.retry_after_seconds)
    return wait if wait < deadline.left else None


def late(deadline: Deadline) -> ClientError:
    """The error of a request that was not answered in time."""
    return ClientError("DEADLINE_EXCEEDED", "", f"no answer within {deadline.seconds:g} s")


def ended() -> ClientError:
    """The error of a stream that the daemon ended, or that was cut off."""
    return ClientError("UNAVAILABLE", "", "the daemon ended the stream")
