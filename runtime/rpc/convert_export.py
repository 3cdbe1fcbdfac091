"""What a session has learnt <-> `ExportSessionResponse`."""

from __future__ import annotations

from acclimate.runtime.rpc import names
from acclimate.runtime.rpc.convert_tensors import lora, lora_message, named_tensor, tensor_message
from acclimate.runtime.types import ExportedSession
from acclimate.v1 import session_service_pb2


def response(exported: ExportedSession) -> session_service_pb2.ExportSessionResponse:
    """The message for an exported session."""
    return session_service_pb2.ExportSessionResponse(
        name=names.session_name(exported.model, exported.session_id),
        model_version=exported.model_version,
        version=exported.version,
        parameters_digest=exported.parameters_digest,
        parameters=[tensor_message(entry.name, entry.values, entry.kind) for entry in exported.parameters],
        statistics=[tensor_message(entry.name, entry.values, entry.kind) for entry in exported.statistics],
        lora=[lora_message(update) for update in exported.lora],
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
        parameters=tuple(named_tensor(entry) for entry in message.parameters),
        statistics=tuple(named_tensor(entry) for entry in message.statistics),
        lora=tuple(lora(update) for update in message.lora),
    )
