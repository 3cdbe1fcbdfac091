"""Requests and answers over one rpc that streams both ways: told apart by id, sent again over a new stream.

`INFER` is `ModelStreamInfer`: a request that was under way when its stream broke is sent again under its id, with
`acclimate_resent`, by which a session that has answered it before knows it again: it is answered twice, and learnt from
once. `CREATE` is `CreateSessions`, where the `request_id` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.rpc import status_pb2

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.client.calling import Deadline
from acclimate.runtime.client.channel import OIP_SERVICE, SESSION_SERVICE
from acclimate.runtime.client.errors import ClientError, refused
from acclimate.runtime.rpc import convert_oip
from acclimate.runtime.types import Scalar
from acclimate.v1 import session_service_pb2 as pb

RESENT = "acclimate_resent"
RETRY_AFTER = "acclimate_retry_after_ms"


@dataclass(frozen=True, slots=True)
class Wire:
    """A rpc that streams both ways, as one that sends and reads unary operations over it sees it.

    Attributes:
        path: `/service/Method`.
        message: what carries an operation's request; the flag says whether it may have been done before.
        reply: the class of the replies.
        asked: the id of an operation's request.
        told: the id in a reply.
        refusal: why a reply is none, if it is none.
        answer: what the operation reads, of a reply.
        timed: tells the daemon for how long an answer is of use, where it can be told.
    """

    path: str
    message: Callable[[Any, bool], Any]
    reply: Any
    asked: Callable[[Any], str]
    told: Callable[[Any], str]
    refusal: Callable[[Any], ClientError | None]
    answer: Callable[[Any], Any]
    timed: Callable[[Any, Deadline], None] = lambda _request, _deadline: None

    def stream(self, channel: Any) -> Any:
        """The callable."""
        return channel.stream_stream(
            self.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self.reply.FromString,
        )


def _again(request: oip.ModelInferRequest, resent: bool) -> oip.ModelInferRequest:
    """The request; only sessions remember what may have been done before."""
    if not resent or "sequence_id" not in request.parameters:
        return request
    copy = oip.ModelInferRequest()
    copy.CopyFrom(request)
    copy.parameters[RESENT].bool_param = True
    return copy


def _timed(request: oip.ModelInferRequest, deadline: Deadline) -> None:
    """Unless the request says so already."""
    if "timeout" not in request.parameters:
        request.parameters["timeout"].int64_param = max(1, round(deadline.left * 1e6))


def _refusal(reply: oip.ModelStreamInferResponse) -> ClientError | None:
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


def _creation(request: pb.CreateSessionRequest, resent: bool) -> pb.CreateSessionsRequest:
    del resent
    return pb.CreateSessionsRequest(session=request, tag=request.request_id)


def _uncreated(reply: pb.CreateSessionsResponse) -> ClientError | None:
    if not reply.HasField("refusal"):
        return None
    return refused(status_pb2.Status.FromString(reply.refusal.SerializeToString()))


INFER = Wire(
    path=f"/{OIP_SERVICE}/ModelStreamInfer",
    message=_again,
    reply=oip.ModelStreamInferResponse,
    asked=lambda request: str(request.id),
    told=lambda reply: str(reply.infer_response.id),
    refusal=_refusal,
    answer=lambda reply: reply.infer_response,
    timed=_timed,
)
CREATE = Wire(
    path=f"/{SESSION_SERVICE}/CreateSessions",
    message=_creation,
    reply=pb.CreateSessionsResponse,
    asked=lambda request: str(request.request_id),
    told=lambda reply: str(reply.tag),
    refusal=_uncreated,
    answer=lambda reply: reply,
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
