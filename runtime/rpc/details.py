"""The `google.rpc` details of a refusal beside its `ErrorInfo` (AIP-193): which field, which resource, which state.

They are made from the code, the reason and the metadata that errors carry, so that who raises one need not know them.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message
from google.rpc import error_details_pb2

from acclimate.runtime.errors import AcclimateError, Code
from acclimate.runtime.rpc import names

# Which part of the request was wrong, by the metadata that errors carry, and where they carry none, by the reason.
FIELDS = {"field": "{}", "parameter": "parameters.{}", "input": "inputs.{}", "output": "outputs.{}"}
FIELD_OF = {
    "INPUTS_MISMATCH": "inputs",
    "LABEL_OUT_OF_RANGE": "labels.label",
    "LABEL_REPEATED": "labels",
    "PAGE_SIZE_INVALID": "page_size",
    "PAGE_TOKEN_INVALID": "page_token",
    "RECIPE_INVALID": "recipe",
    "ROW_OUT_OF_RANGE": "labels.row",
    "SEQUENCE_ID_MISSING": "parameters.sequence_id",
    "SESSION_ID_INVALID": "session_id",
}
ABOUT = (Code.NOT_FOUND, Code.ALREADY_EXISTS, Code.FAILED_PRECONDITION, Code.ABORTED)
"""Refusals that a resource's own state is the reason for."""


def details(error: AcclimateError, message: str, metadata: Mapping[str, str]) -> list[Message]:
    """At most one detail of each kind; `message` and `metadata` are cut to size already."""
    found: list[Message] = []
    field = _field(error, metadata)
    if error.code is Code.INVALID_ARGUMENT and field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        found.append(error_details_pb2.BadRequest(field_violations=[violation]))
    resource = _resource(metadata) if error.code in ABOUT else None
    if resource is not None:
        kind, name = resource
        found.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name, description=message))
    if error.code is Code.FAILED_PRECONDITION:
        subject = "" if resource is None else resource[1]
        unmet = error_details_pb2.PreconditionFailure.Violation(type=error.reason, subject=subject, description=message)
        found.append(error_details_pb2.PreconditionFailure(violations=[unmet]))
    if "quota" in metadata:
        over = error_details_pb2.QuotaFailure.Violation(subject=metadata["quota"], description=message)
        found.append(error_details_pb2.QuotaFailure(violations=[over]))
    return found


def _field(error: AcclimateError, metadata: Mapping[str, str]) -> str | None:
    named = (form.format(metadata[key]) for key, form in FIELDS.items() if key in metadata)
    return next(named, FIELD_OF.get(error.reason))


def _resource(metadata: Mapping[str, str]) -> tuple[str, str] | None:
    """Type and name of the resource that the metadata is about, as far as it tells."""
    model, session, snapshot = (metadata.get(key) for key in ("model", "session", "snapshot"))
    if model is None:
        return None
    if session is None:
        return "acclimate.v1/Model", names.model_name(model)
    if snapshot is None:
        return "acclimate.v1/Session", names.session_name(model, session)
    return "acclimate.v1/Snapshot", names.snapshot_name(model, session, snapshot)
