"""What a session has learnt <-> `ExportSessionResponse`."""

from __future__ import annotations

from typing import cast

import numpy as np

from acclimate.adapters.layout import Kind
from acclimate.runtime.rpc import names
from acclimate.runtime.types import ExportedSession, NamedTensor
from acclimate.v1 import session_pb2, session_service_pb2


def response(exported: ExportedSession) -> session_service_pb2.ExportSessionResponse:
    """The message for an exported session."""
    return session_service_pb2.ExportSessionResponse(
        name=names.session_name(exported.model, exported.session_id),
        model_version=exported.model_version,
        version=exported.version,
        parameters_digest=exported.parameters_digest,
        parameters=[_message(tensor) for tensor in exported.parameters],
        statistics=[_message(tensor) for tensor in exported.statistics],
    )


def exported_session(message: session_service_pb2.ExportSessionResponse) -> ExportedSession:
    """Inverse of `response`.

    Raises:
        ValueError: a tensor's bytes do not fill its shape.
    """
    model, session_id = names.parse_session(message.name)
    return ExportedSession(
        model=model,
        session_id=session_id,
        model_version=message.model_version,
        version=message.version,
        parameters_digest=message.parameters_digest,
        parameters=tuple(_tensor(entry) for entry in message.parameters),
        statistics=tuple(_tensor(entry) for entry in message.statistics),
    )


def _message(tensor: NamedTensor) -> session_pb2.NamedTensor:
    values = tensor.values.astype("<f4", copy=False).tobytes()
    return session_pb2.NamedTensor(name=tensor.name, kind=tensor.kind, shape=tensor.values.shape, values=values)


def _tensor(message: session_pb2.NamedTensor) -> NamedTensor:
    values = np.frombuffer(message.values, "<f4").astype(np.float32).reshape(tuple(message.shape))
    return NamedTensor(message.name, cast(Kind, message.kind), values)
