"""Messages of `acclimate.v1` <-> the service's own types."""

from __future__ import annotations

from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from acclimate.runtime import types
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.rpc import convert_seed, names
from acclimate.runtime.sessions.states import SessionState
from acclimate.v1 import session_pb2, session_service_pb2

MAX_LABELS = 10_000
HasBudget: TypeAlias = (
    session_service_pb2.CreateSessionRequest | session_service_pb2.ForkSessionRequest | session_pb2.Session
)

KINDS = {kind: f"KIND_{kind.name}" for kind in types.EventKind}
# What answers; whether a session is paused is a field of its own.
STATES = {state.value: f"STATE_{state.name}" for state in SessionState if state is state.answering}
_KINDS_BACK = {name: kind for kind, name in KINDS.items()}
_STATES_BACK = {name: state for state, name in STATES.items()}


def session_message(view: types.SessionView) -> session_pb2.Session:
    """The message for a session."""
    return session_pb2.Session(
        name=names.session_name(view.model, view.session_id),
        recipe=view.recipe,
        recipe_parameters=dict(view.recipe_parameters),
        state=STATES[view.state],
        version=view.version,
        create_time=timestamp(view.created_at),
        last_use_time=timestamp(view.last_used_at),
        activity=session_pb2.SessionActivity(
            requests=view.requests,
            samples=view.samples,
            buffered_samples=view.buffered,
            updates=view.updates,
            rollbacks=view.rollbacks,
            restorations=view.restorations,
            skipped=dict(view.skipped),
            backward_samples=view.backward_samples,
            adaptation_time=duration(view.adaptation_ms / 1e3),
        ),
        quality=session_pb2.SessionQuality(
            mean_entropy_nats=view.mean_entropy,
            mean_confidence=view.mean_confidence,
            estimated_accuracy=view.estimated_accuracy,
            estimated_accuracy_doc=view.estimated_accuracy_doc,
            labelled=view.labelled,
            labelled_correct=view.labelled_correct,
            theta_distance=view.theta_distance,
            drift=dict(view.drift),
        ),
        budget=session_pb2.Budget(refill_ms_per_s=view.budget.refill_ms_per_s, capacity_ms=view.budget.capacity_ms),
        budget_available_ms=view.budget_available_ms,
        state_bytes=view.state_bytes,
        paused=view.paused,
        etag=view.etag,
        ttl=None if view.ttl_seconds is None else duration(view.ttl_seconds),
        labels=dict(view.labels),
        tenant=view.tenant,
    )


def session_view(message: session_pb2.Session) -> types.SessionView:
    """Inverse of `session_message`, times to the microsecond."""
    model, session_id = names.parse_session(message.name)
    activity, quality = message.activity, message.quality
    return types.SessionView(
        model=model,
        session_id=session_id,
        recipe=message.recipe,
        recipe_parameters=dict(message.recipe_parameters),
        state=_STATES_BACK[session_pb2.Session.State.Name(message.state)],
        version=message.version,
        created_at=seconds(message.create_time),
        last_used_at=seconds(message.last_use_time),
        requests=activity.requests,
        samples=activity.samples,
        buffered=activity.buffered_samples,
        updates=activity.updates,
        rollbacks=activity.rollbacks,
        restorations=activity.restorations,
        skipped=dict(activity.skipped),
        backward_samples=activity.backward_samples,
        adaptation_ms=activity.adaptation_time.ToMicroseconds() / 1e3,
        budget=types.Budget(message.budget.refill_ms_per_s, message.budget.capacity_ms),
        budget_available_ms=message.budget_available_ms,
        mean_entropy=quality.mean_entropy_nats,
        mean_confidence=quality.mean_confidence,
        estimated_accuracy=quality.estimated_accuracy,
        estimated_accuracy_doc=quality.estimated_accuracy_doc,
        labelled=quality.labelled,
        labelled_correct=quality.labelled_correct,
        theta_distance=quality.theta_distance,
        drift=dict(quality.drift),
        state_bytes=message.state_bytes,
        paused=message.paused,
        ttl_seconds=span(message.ttl) if message.HasField("ttl") else None,
        etag=message.etag,
        labels=dict(message.labels),
        tenant=message.tenant,
    )


def event_message(event: types.Event) -> session_pb2.SessionEvent:
    """The message for an event."""
    return session_pb2.SessionEvent(
        name=names.session_name(event.model, event.session_id),
        kind=KINDS[event.kind],
        time=timestamp(event.at),
        version_before=event.version_before,
        version_after=event.version_after,
        reason=event.reason,
        cost_ms=event.cost_ms,
        samples=event.samples,
        restored_to=event.restored_to,
        snapshot=names.snapshot_name(event.model, event.source or event.session_id, event.snapshot)
        if event.snapshot
        else "",
        source=names.session_name(event.model, event.source) if event.source else "",
    )


def event(message: session_pb2.SessionEvent) -> types.Event:
    """Inverse of `event_message`, its time to the microsecond.

    Raises:
        KeyError: the kind is one that this version does not know.
    """
    model, session_id = names.parse_session(message.name)
    return types.Event(
        kind=_KINDS_BACK[session_pb2.SessionEvent.Kind.Name(message.kind)],
        model=model,
        session_id=session_id,
        at=seconds(message.time),
        version_before=message.version_before,
        version_after=message.version_after,
        reason=message.reason,
        cost_ms=message.cost_ms,
        samples=message.samples,
        restored_to=message.restored_to,
        snapshot=names.parse_snapshot(message.snapshot)[2] if message.snapshot else "",
        source=names.parse_session(message.source)[1] if message.source else "",
    )


def create_session(message: session_service_pb2.CreateSessionRequest) -> types.CreateSession:
    """The request behind a CreateSession message.

    Raises:
        InvalidArgument: the parent is not one model, or the seed's tensors are malformed.
    """
    return types.CreateSession(
        model=names.parse_model(message.parent),
        session_id=message.session_id if message.HasField("session_id") else None,
        recipe=message.recipe if message.HasField("recipe") else None,
        parameters=dict(message.recipe_parameters),
        budget=budget(message),
        seed=convert_seed.seed(message.seed) if message.HasField("seed") else None,
        ttl_seconds=span(message.ttl) if message.HasField("ttl") else None,
        labels=dict(message.labels),
    )


def every_tenant(message: session_service_pb2.ListSessionsRequest) -> bool:
    """Whether a list is of every tenant's sessions, or InvalidArgument for a tenant that cannot be named here."""
    if message.tenant not in ("", names.ANY):
        raise InvalidArgument(
            "TENANT_INVALID",
            f"tenant is {message.tenant[:80]!r}; leave it out, or say '-' for every tenant; who may act for one names "
            "it by the metadata 'acclimate-tenant'",
            field="tenant",
        )
    return bool(message.tenant)


def budget(message: HasBudget) -> types.Budget | None:
    """The budget in a message that has one, or None."""
    if not message.HasField("budget"):
        return None
    return types.Budget(message.budget.refill_ms_per_s, message.budget.capacity_ms)


def feedback(message: session_service_pb2.SendFeedbackRequest) -> tuple[types.Feedback, ...]:
    """The labels of a SendFeedback message.

    Raises:
        InvalidArgument: there is none, or there are more than 10000.
    """
    if not 1 <= len(message.labels) <= MAX_LABELS:
        raise InvalidArgument(
            "LABEL_COUNT_INVALID",
            f"labels has {len(message.labels)} entries; send 1 to {MAX_LABELS}",
            field="labels",
            given=len(message.labels),
        )
    return tuple(
        types.Feedback(request_id=label.request_id, label=label.label, row=label.row) for label in message.labels
    )


def timestamp(unix_seconds: float) -> Timestamp:
    """Unix seconds as a timestamp, to the microsecond."""
    message = Timestamp()
    message.FromMicroseconds(round(unix_seconds * 1e6))
    return message


def seconds(message: Timestamp) -> float:
    """A timestamp as Unix seconds, to the microsecond."""
    return message.ToMicroseconds() / 1e6


def duration(seconds: float) -> Duration:
    """Seconds as a duration, to the microsecond."""
    message = Duration()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def span(message: Duration) -> float:
    """A duration as seconds, whatever is in it: what is out of range, or of two signs, the service refuses."""
    return message.seconds + message.nanos / 1e9
