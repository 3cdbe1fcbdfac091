"""Every unary call of the client as data: the rpc, its request, how its reply is read. Both clients send these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from numpy.typing import ArrayLike

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.client import messages
from acclimate.runtime.client.channel import OIP_SERVICE, SERVER_SERVICE, SESSION_SERVICE
from acclimate.runtime.client.messages import new_id
from acclimate.runtime.client.results import ModelInfo, Prediction, ServerInfo
from acclimate.runtime.lifecycle_types import SnapshotView
from acclimate.runtime.rpc import convert_export, convert_lifecycle, convert_sessions, names
from acclimate.runtime.types import (
    Budget,
    CreateSession,
    ExportedSession,
    Feedback,
    FeedbackResult,
    Scalar,
    Seed,
    SessionView,
)
from acclimate.v1 import server_service_pb2
from acclimate.v1 import session_service_pb2 as pb

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """A call: `path` is `/service/Method`, `reply` the class of the reply's message, `read` makes the result of it."""

    path: str
    request: Any
    reply: Any
    read: Callable[[Any], T]


def server_live() -> Operation[bool]:
    """Whether anybody is there."""
    return _inference("ServerLive", oip.ServerLiveRequest(), lambda reply: bool(reply.live))


def server_ready() -> Operation[bool]:
    """Whether the daemon accepts work."""
    return _inference("ServerReady", oip.ServerReadyRequest(), lambda reply: bool(reply.ready))


def server_info() -> Operation[ServerInfo]:
    """The daemon."""
    request, reply = server_service_pb2.GetServerInfoRequest(), server_service_pb2.GetServerInfoResponse
    return Operation(f"/{SERVER_SERVICE}/GetServerInfo", request, reply, messages.server_info)


def model(name: str) -> Operation[ModelInfo]:
    """A served model."""
    return _inference("ModelMetadata", oip.ModelMetadataRequest(name=name), messages.model_info)


def predict(
    info: ModelInfo, array: ArrayLike, parameters: Mapping[str, Scalar] | None, request_id: str | None
) -> Operation[Prediction]:
    """An answer.

    Raises:
        ClientError: INVALID_ARGUMENT, the array's dtype is of another kind than the model's datatype.
    """
    request = messages.infer_request(info, array, parameters or {}, request_id)
    return _inference("ModelInfer", request, messages.prediction)


def create_session(
    model: str, session_id: str | None, recipe: str | None, recipe_parameters: Mapping[str, float] | None,
    budget: Budget | None, seed: Seed | None, ttl_seconds: float | None, labels: Mapping[str, str] | None = None,
) -> Operation[SessionView]:  # fmt: skip
    """A new session."""
    request = messages.create_request(model, session_id, recipe, recipe_parameters, budget, seed, ttl_seconds, labels)
    return _session("CreateSession", request, _view)


def creation(wanted: CreateSession) -> Operation[SessionView]:
    """The same, of what is wanted."""
    return create_session(
        wanted.model, wanted.session_id, wanted.recipe, wanted.parameters, wanted.budget, wanted.seed,
        wanted.ttl_seconds, wanted.labels,
    )  # fmt: skip


def get_session(model: str, session_id: str) -> Operation[SessionView]:
    """A session as it stands."""
    return _session("GetSession", pb.GetSessionRequest(name=names.session_name(model, session_id)), _view)


def list_sessions(
    model: str | None, page_size: int, page_token: str, text: str = "", every_tenant: bool = False
) -> Operation[pb.ListSessionsResponse]:
    """A page of sessions, of one model or of all, as the filter wants them."""
    request = pb.ListSessionsRequest(
        parent=names.model_name(names.ANY if model is None else model),
        page_size=page_size,
        page_token=page_token,
        filter=text,
        tenant=names.ANY if every_tenant else "",
    )
    return _session("ListSessions", request, lambda reply: reply)


def reset_session(model: str, session_id: str, etag: str) -> Operation[SessionView]:
    """Back to the source."""
    request = pb.ResetSessionRequest(name=names.session_name(model, session_id), etag=etag)
    return _session("ResetSession", request, _view)


def update_session(
    model: str, session_id: str, budget: Budget | None, ttl_seconds: float | None, etag: str,
    labels: Mapping[str, str | None] | None = None,
) -> Operation[SessionView]:  # fmt: skip
    """Another budget, time-to-live or labels; None leaves it."""
    request = messages.update_request(model, session_id, budget, ttl_seconds, etag, labels)
    return _session("UpdateSession", request, _view)


def pause_session(model: str, session_id: str, etag: str) -> Operation[SessionView]:
    """No learning."""
    request = pb.PauseSessionRequest(name=names.session_name(model, session_id), etag=etag)
    return _session("PauseSession", request, _view)


def resume_session(model: str, session_id: str, etag: str) -> Operation[SessionView]:
    """Learning again."""
    request = pb.ResumeSessionRequest(name=names.session_name(model, session_id), etag=etag)
    return _session("ResumeSession", request, _view)


def fork_session(
    model: str, session_id: str, new_id: str | None, snapshot_id: str | None, budget: Budget | None,
    ttl_seconds: float | None, etag: str,
) -> Operation[SessionView]:  # fmt: skip
    """A copy of a session, or of a snapshot of it."""
    request = messages.fork_request(model, session_id, new_id, snapshot_id, budget, ttl_seconds, etag)
    return _session("ForkSession", request, _view)


def snapshot_session(model: str, session_id: str, snapshot_id: str | None, etag: str) -> Operation[SnapshotView]:
    """A new snapshot."""
    request = pb.SnapshotSessionRequest(name=names.session_name(model, session_id), etag=etag, request_id=new_id())
    if snapshot_id is not None:
        request.snapshot_id = snapshot_id
    return _session("SnapshotSession", request, _snapshot)


def get_snapshot(model: str, session_id: str, snapshot_id: str) -> Operation[SnapshotView]:
    """A snapshot."""
    request = pb.GetSnapshotRequest(name=names.snapshot_name(model, session_id, snapshot_id))
    return _session("GetSnapshot", request, _snapshot)


def list_snapshots(model: str, session_id: str, page_size: int, page_token: str) -> Operation[pb.ListSnapshotsResponse]:
    """A page of a session's snapshots."""
    parent = names.session_name(model, session_id)
    request = pb.ListSnapshotsRequest(parent=parent, page_size=page_size, page_token=page_token)
    return _session("ListSnapshots", request, lambda reply: reply)


def delete_snapshot(model: str, session_id: str, snapshot_id: str) -> Operation[None]:
    """Forget a snapshot."""
    request = pb.DeleteSnapshotRequest(name=names.snapshot_name(model, session_id, snapshot_id))
    return _session("DeleteSnapshot", request, lambda _: None)


def restore_session(model: str, session_id: str, snapshot_id: str, etag: str) -> Operation[SessionView]:
    """Back to a snapshot."""
    request = pb.RestoreSessionRequest(name=names.snapshot_name(model, session_id, snapshot_id), etag=etag)
    return _session("RestoreSession", request, _view)


def export_session(model: str, session_id: str) -> Operation[ExportedSession]:
    """What was learnt."""
    request = pb.ExportSessionRequest(name=names.session_name(model, session_id))
    return _session("ExportSession", request, convert_export.exported_session)


def delete_session(model: str, session_id: str, etag: str) -> Operation[None]:
    """Close and forget."""
    request = pb.DeleteSessionRequest(name=names.session_name(model, session_id), etag=etag)
    return _session("DeleteSession", request, lambda _: None)


def feedback(model: str, session_id: str, labels: tuple[Feedback, ...]) -> Operation[FeedbackResult]:
    """True labels."""
    return _session("SendFeedback", messages.feedback_request(model, session_id, labels), messages.feedback_result)


def _inference(method: str, request: Any, read: Callable[[Any], T]) -> Operation[T]:
    return Operation(f"/{OIP_SERVICE}/{method}", request, getattr(oip, f"{method}Response"), read)


def _session(method: str, request: Any, read: Callable[[Any], T]) -> Operation[T]:
    return Operation(f"/{SESSION_SERVICE}/{method}", request, getattr(pb, f"{method}Response"), read)


def _view(reply: Any) -> SessionView:
    return convert_sessions.session_view(reply.session)


def _snapshot(reply: Any) -> SnapshotView:
    return convert_lifecycle.snapshot_view(reply.snapshot)
