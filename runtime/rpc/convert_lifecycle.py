"""Messages about the life of a session <-> the service's own types."""

from __future__ import annotations

from collections.abc import Iterable

from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.lifecycle_types import ForkSession, SnapshotView, UpdateSession
from acclimate.runtime.rpc import names
from acclimate.runtime.rpc.convert_sessions import KINDS, STATES, budget, seconds, span, timestamp
from acclimate.runtime.types import EventKind
from acclimate.v1 import session_pb2, session_service_pb2

# What `*` stands for in an update mask, and what an absent one may.
WHOLE = ("budget", "ttl", "labels")
_KINDS_BACK = {session_pb2.SessionEvent.Kind.Value(name): kind for kind, name in KINDS.items()}
_STATES_BACK = {name: state for state, name in STATES.items()}


def snapshot_message(view: SnapshotView) -> session_pb2.Snapshot:
    """The message for a snapshot."""
    return session_pb2.Snapshot(
        name=names.snapshot_name(view.model, view.session_id, view.snapshot_id),
        create_time=timestamp(view.created_at),
        version=view.version,
        state=STATES[view.state],
        theta_distance=view.theta_distance,
        size_bytes=view.nbytes,
    )


def snapshot_view(message: session_pb2.Snapshot) -> SnapshotView:
    """Inverse of `snapshot_message`, times to the microsecond."""
    model, session_id, snapshot_id = names.parse_snapshot(message.name)
    return SnapshotView(
        model=model,
        session_id=session_id,
        snapshot_id=snapshot_id,
        created_at=seconds(message.create_time),
        version=message.version,
        state=_STATES_BACK[session_pb2.Session.State.Name(message.state)],
        theta_distance=message.theta_distance,
        nbytes=message.size_bytes,
    )


def fork(message: session_service_pb2.ForkSessionRequest) -> ForkSession:
    """The fork that is asked for.

    Raises:
        InvalidArgument: the name is neither a session's nor a snapshot's.
    """
    snapshot_id = ""
    if message.name.count("/") > 3:
        model, session_id, snapshot_id = names.parse_snapshot(message.name)
    else:
        model, session_id = names.parse_session(message.name)
    return ForkSession(
        model=model,
        session_id=session_id,
        new_id=message.session_id if message.HasField("session_id") else None,
        snapshot_id=snapshot_id,
        budget=budget(message),
        ttl_seconds=span(message.ttl) if message.HasField("ttl") else None,
        etag=message.etag,
    )


def update(message: session_service_pb2.UpdateSessionRequest) -> UpdateSession:
    """The change that is asked for; without a mask, of what is present (AIP-134).

    Raises:
        InvalidArgument: the session's name is malformed.
    """
    session = message.session
    model, session_id = names.parse_session(session.name, "session.name")
    paths = tuple(message.update_mask.paths)
    if not paths:
        present = {field.name for field, _ in session.ListFields()}
        paths = tuple(path for path in WHOLE if path in present)
    elif "*" in paths:
        paths = (*WHOLE, *(path for path in paths if path != "*"))
    return UpdateSession(
        model=model,
        session_id=session_id,
        paths=paths,
        budget=budget(session),
        ttl_seconds=span(session.ttl) if session.HasField("ttl") else None,
        labels=dict(session.labels),
        etag=session.etag,
    )


def kinds(values: Iterable[int]) -> tuple[EventKind, ...]:
    """Kinds of events.

    Raises:
        InvalidArgument: one that does not exist.
    """
    chosen = []
    for value in values:
        if value not in _KINDS_BACK:
            raise InvalidArgument(
                "EVENT_KIND_INVALID", f"kinds has {value}, which is no kind of event", field="kinds", kind=value
            )
        chosen.append(_KINDS_BACK[value])
    return tuple(chosen)
