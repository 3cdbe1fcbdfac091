"""Building requests and reading replies, shared by the blocking and the asyncio client."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from numpy.typing import ArrayLike, NDArray

from acclimate.adapters.manifest import TensorSpec
from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.client.errors import ClientError
from acclimate.runtime.client.results import ModelInfo, Prediction, ServerInfo
from acclimate.runtime.rpc import convert_oip, convert_seed, convert_sessions, names, tensors
from acclimate.runtime.types import Budget, EventKind, Feedback, FeedbackResult, Scalar, Seed
from acclimate.v1 import server_service_pb2, session_pb2, session_service_pb2


def infer_request(
    model: ModelInfo, array: ArrayLike, parameters: Mapping[str, Scalar], request_id: str | None
) -> oip.ModelInferRequest:
    """A raw ModelInfer request for the model's one input.

    Raises:
        ClientError: INVALID_ARGUMENT, the array's dtype is of another kind than the model's datatype.
    """
    spec = model.inputs[0]
    tensor = as_input(spec, array)
    request = oip.ModelInferRequest(
        model_name=model.name,
        id=request_id or uuid.uuid4().hex,
        inputs=[oip.ModelInferRequest.InferInputTensor(name=spec.name, datatype=spec.datatype, shape=tensor.shape)],
        raw_input_contents=[tensors.to_raw(tensor)],
    )
    for key, value in parameters.items():
        request.parameters[key].CopyFrom(convert_oip.parameter(value))
    return request


def as_input(spec: TensorSpec, array: ArrayLike) -> NDArray[Any]:
    """The array in the datatype of `spec`; one sample without a batch dimension gets one.

    Raises:
        ClientError: INVALID_ARGUMENT, the dtype is of another kind (floats for an integer input, texts, ...).
    """
    given = np.asarray(array)
    if given.ndim == len(spec.shape) - 1:
        given = given[np.newaxis]
    wire = tensors.DATATYPES[spec.datatype][0]
    if not np.can_cast(given.dtype, wire, "same_kind"):
        raise ClientError(
            "INVALID_ARGUMENT",
            "DATATYPE_MISMATCH",
            f"input {spec.name!r} takes {spec.datatype}, the array is {given.dtype}; convert it first",
            {"input": spec.name, "datatype": str(given.dtype), "expected": spec.datatype},
        )
    return given.astype(wire, copy=False)


def prediction(message: oip.ModelInferResponse) -> Prediction:
    """An answer; its first output tensor holds the logits `[B, C]`."""
    output, blob = message.outputs[0], message.raw_output_contents[0]
    logits = tensors.from_raw(output.name, output.datatype, output.shape, blob).astype(np.float32, copy=False)
    parameters = {key: convert_oip.scalar(key, value) for key, value in message.parameters.items()}
    return Prediction(
        logits=logits,
        probabilities=_softmax(logits),
        labels=logits.argmax(axis=1),
        request_id=message.id,
        model=message.model_name,
        version=int(parameters.get("acclimate_version", 0)),
        parameters=parameters,
    )


def sequence(session_id: str, adapt: bool) -> dict[str, Scalar]:
    """The request parameters that place a request in a session."""
    return {"sequence_id": session_id, "acclimate_adapt": adapt}


def create_request(
    model: str,
    session_id: str | None,
    recipe: str | None,
    recipe_parameters: Mapping[str, float] | None,
    budget: Budget | None,
    seed: Seed | None = None,
    ttl_seconds: float | None = None,
    labels: Mapping[str, str] | None = None,
) -> session_service_pb2.CreateSessionRequest:
    """A CreateSession request; None leaves the choice to the daemon, and the session at the source."""
    request = session_service_pb2.CreateSessionRequest(
        parent=names.model_name(model),
        recipe_parameters=dict(recipe_parameters or {}),
        budget=budget_message(budget),
        ttl=ttl_message(ttl_seconds),
        request_id=new_id(),
        labels=labels,
    )
    if session_id is not None:
        request.session_id = session_id
    if recipe is not None:
        request.recipe = recipe
    if seed is not None:
        request.seed.CopyFrom(convert_seed.message(seed))
    return request


def fork_request(
    model: str,
    session_id: str,
    new_id_: str | None,
    snapshot_id: str | None,
    budget: Budget | None,
    ttl_seconds: float | None,
    etag: str,
) -> session_service_pb2.ForkSessionRequest:
    """A ForkSession request; None takes what the session to copy has."""
    name = names.session_name(model, session_id)
    request = session_service_pb2.ForkSessionRequest(
        name=name if snapshot_id is None else names.snapshot_name(model, session_id, snapshot_id),
        budget=budget_message(budget),
        ttl=ttl_message(ttl_seconds),
        etag=etag,
        request_id=new_id(),
    )
    if new_id_ is not None:
        request.session_id = new_id_
    return request


def update_request(
    model: str,
    session_id: str,
    budget: Budget | None,
    ttl_seconds: float | None,
    etag: str,
    labels: Mapping[str, str | None] | None = None,
) -> session_service_pb2.UpdateSessionRequest:
    """An UpdateSession request of what is not None; of labels, those that are None go and the others are set."""
    session = session_pb2.Session(
        name=names.session_name(model, session_id),
        etag=etag,
        budget=budget_message(budget),
        ttl=ttl_message(ttl_seconds),
        labels={key: value for key, value in (labels or {}).items() if value is not None},
    )
    named = (("budget", budget), ("ttl", ttl_seconds))
    paths = [path for path, value in named if value is not None] + [f"labels.{key}" for key in labels or {}]
    return session_service_pb2.UpdateSessionRequest(session=session, update_mask=FieldMask(paths=paths))


def budget_message(budget: Budget | None) -> session_pb2.Budget | None:
    """The message for a budget, or none."""
    if budget is None:
        return None
    return session_pb2.Budget(refill_ms_per_s=budget.refill_ms_per_s, capacity_ms=budget.capacity_ms)


def ttl_message(seconds: float | None) -> Duration | None:
    """The message for a time-to-live, or none."""
    return None if seconds is None else convert_sessions.duration(seconds)


def new_id() -> str:
    """A request id, by which the daemon knows a request that it has seen before."""
    return uuid.uuid4().hex


def feedback_request(
    model: str, session_id: str, labels: tuple[Feedback, ...]
) -> session_service_pb2.SendFeedbackRequest:
    """A SendFeedback request."""
    return session_service_pb2.SendFeedbackRequest(
        name=names.session_name(model, session_id),
        request_id=new_id(),
        labels=[
            session_service_pb2.Label(request_id=entry.request_id, row=entry.row, label=entry.label) for entry in labels
        ],
    )


def feedback_result(message: session_service_pb2.SendFeedbackResponse) -> FeedbackResult:
    """What became of labels."""
    return FeedbackResult(message.accepted, message.correct, tuple(message.unknown_request_ids))


def watch_request(
    model: str | None, session_id: str | None, kinds: Collection[EventKind]
) -> session_service_pb2.WatchSessionsRequest:
    """A WatchSessions request; None stands for all, and no kinds for every one."""
    name = names.model_name(names.ANY if model is None else model)
    if model is not None and session_id is not None:
        name = names.session_name(model, session_id)
    chosen = [convert_sessions.KINDS[kind] for kind in kinds]
    return session_service_pb2.WatchSessionsRequest(name=name, kinds=chosen)


def model_info(message: oip.ModelMetadataResponse) -> ModelInfo:
    """A served model."""
    return ModelInfo(
        name=message.name,
        version=message.versions[0] if message.versions else "",
        platform=message.platform,
        inputs=tuple(TensorSpec(spec.name, spec.datatype, tuple(spec.shape)) for spec in message.inputs),
        outputs=tuple(TensorSpec(spec.name, spec.datatype, tuple(spec.shape)) for spec in message.outputs),
        properties=dict(message.properties),
    )


def server_info(message: server_service_pb2.GetServerInfoResponse) -> ServerInfo:
    """The daemon."""
    limits = message.limits
    return ServerInfo(
        version=message.version,
        pid=message.pid,
        started_at=convert_sessions.seconds(message.start_time),
        rss_bytes=message.rss_bytes,
        torch_imported=message.torch_imported,
        transformers_imported=message.transformers_imported,
        onnx_imported=message.onnx_imported,
        max_message_bytes=limits.max_message_bytes,
        max_sessions=limits.max_sessions,
        recipes=tuple(limits.recipes),
        default_recipe=limits.default_recipe,
        models=tuple(message.models),
    )


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return result
