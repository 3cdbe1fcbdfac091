"""Domain errors -> gRPC statuses: the only place that maps codes.

Every refusal carries one `google.rpc.ErrorInfo` (AIP-193) and what `details.py` adds to it; a retry hint adds
`RetryInfo` and the trailer `grpc-retry-pushback-ms`, which gRPC clients obey (gRFC A6). Anything that is not
an `AcclimateError` is a defect: the client reads a correlation id, the log reads everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from acclimate.runtime.errors import AcclimateError, Code
from acclimate.runtime.rpc.details import details as details_of

DOMAIN = "acclimate"
DETAILS_TRAILER = "grpc-status-details-bin"
PUSHBACK_TRAILER = "grpc-retry-pushback-ms"
NEVER = "-1"

# Trailers of more than 8 KiB are refused by gRPC clients, so what a client chose is cut before it is echoed.
MAX_MESSAGE = 480
MAX_METADATA_VALUE = 120
MAX_METADATA_ENTRIES = 12

CODES: dict[Code, grpc.StatusCode] = {code: grpc.StatusCode[code.name] for code in Code}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What `ServicerContext.abort` takes."""

    code: grpc.StatusCode
    details: str
    trailers: tuple[tuple[str, str | bytes], ...]

    @property
    def packed(self) -> bytes:
        """All of it as a `google.rpc.Status`."""
        return next(value for key, value in self.trailers if key == DETAILS_TRAILER and isinstance(value, bytes))


def refusal(error: AcclimateError) -> Refusal:
    """The status for a domain error."""
    message = _cut(error.message, MAX_MESSAGE)
    metadata = {
        _cut(key, 64): _cut(value, MAX_METADATA_VALUE)
        for key, value in list(error.metadata.items())[:MAX_METADATA_ENTRIES]
    }
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    details += details_of(error, message, metadata)
    trailers: list[tuple[str, str | bytes]] = []
    if error.retry_after_seconds is not None:
        milliseconds = max(0, math.ceil(error.retry_after_seconds * 1e3))
        details.append(error_details_pb2.RetryInfo(retry_delay=_milliseconds(milliseconds)))
        trailers.append((PUSHBACK_TRAILER, str(milliseconds)))
    elif error.code is Code.RESOURCE_EXHAUSTED:
        # Clients retry this code, unless they are told that it will not pass by itself.
        trailers.append((PUSHBACK_TRAILER, NEVER))
    code = CODES[error.code]
    return Refusal(code, message, (_packed(code, message, details), *trailers))


def internal(correlation_id: str) -> Refusal:
    """The status for a defect: nothing of it but the id under which the log tells the rest."""
    message = f"internal error {correlation_id}; the daemon's log has the details under this correlation id"
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"correlation_id": correlation_id})
    code = grpc.StatusCode.INTERNAL
    return Refusal(code, message, (_packed(code, message, [info]),))


def _packed(code: grpc.StatusCode, message: str, details: list[Message]) -> tuple[str, bytes]:
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    return DETAILS_TRAILER, status.SerializeToString()


def _milliseconds(value: int) -> Duration:
    message = Duration()
    message.FromMilliseconds(value)
    return message


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
