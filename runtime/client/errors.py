"""The client's one error: a gRPC status with its `google.rpc` details read."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.rpc import error_details_pb2, status_pb2

DETAILS_TRAILER = "grpc-status-details-bin"


class ClientError(Exception):
    """A call that failed.

    Attributes:
        code: gRPC status code by name, for instance `NOT_FOUND`.
        reason: the daemon's stable reason, for instance `SESSION_NOT_FOUND`; empty if it gave none, as when
            it could not be reached. Branch on it, not on the message.
        message: one sentence for a person.
        metadata: the variables of the message.
        retry_after_seconds: when to come back, or None.
        fields: what is wrong with a field of the request, by its path.
        resource: name of the resource that the refusal is about, or empty.
    """

    def __init__(
        self,
        code: str,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        fields: Mapping[str, str] | None = None,
        resource: str = "",
    ) -> None:
        super().__init__(f"{code}: {message}" if not reason else f"{code} ({reason}): {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds
        self.fields = dict(fields or {})
        self.resource = resource


class SessionLost(ClientError):
    """NOT_FOUND, SESSION_NOT_FOUND: the daemon was started again and did not keep the session."""


def lost(error: ClientError, created_at: float, started_at: float) -> SessionLost | None:
    """What to say of a session that is not there, if the daemon started after it was created; Unix seconds, both."""
    if started_at <= created_at:
        return None
    return SessionLost(
        error.code,
        error.reason,
        f"{error.message}; the daemon was started again after the session had been created, and did not keep it",
        error.metadata | {"daemon_started_at": f"{started_at:.6f}"},
        resource=error.resource,
    )


def client_error(error: grpc.RpcError) -> ClientError:
    """What a failed call says, its details unpacked where there are any."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return ClientError("UNKNOWN", "", str(error))
    return _said(error.code().name, error.details() or "", _status(error))


def refused(status: status_pb2.Status) -> ClientError:
    """What a status says that came as a part of a reply."""
    known = {code.value[0]: code.name for code in grpc.StatusCode}
    return _said(known.get(status.code, "UNKNOWN"), status.message, status)


def _said(code: str, message: str, status: status_pb2.Status) -> ClientError:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    bad, about = error_details_pb2.BadRequest(), error_details_pb2.ResourceInfo()
    after: float | None = None
    for detail in status.details:
        for known in (info, retry, bad, about):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
                after = retry.retry_delay.ToMilliseconds() / 1e3 if known is retry else after
    return ClientError(
        code,
        info.reason,
        message,
        dict(info.metadata),
        after,
        {violation.field: violation.description for violation in bad.field_violations},
        about.resource_name,
    )


def _status(error: grpc.Call | grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_TRAILER and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()
