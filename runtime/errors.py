"""Every error a client can be told about: a code, a stable reason, a sentence and its variables.

AcclimateError
├── InvalidArgument      the request is wrong in itself; the message names field, value and fix
├── Unauthenticated      nobody said who calls, or the credential is not good
├── PermissionDenied     who calls may not do this
├── NotFound             no such model or session
├── AlreadyExists        a session of this id exists
├── FailedPrecondition   right request, wrong state (bundle incompatible, session closing)
├── ResourceExhausted    a queue, quota or budget is full; `retry_after_seconds` says when to come back
├── Unavailable          draining or not ready
├── Aborted              somebody else has, or changed, what the request is about
├── DataLoss             what was stored does not hold any more
├── DeadlineExceeded     the client's deadline passed before the work began
└── Unimplemented        part of a public protocol that is not served here

Any other exception is a defect: clients read "internal", the log reads everything.
`rpc/status.py` alone maps codes to gRPC.
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Transport-neutral outcome of a refused request."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    ABORTED = "ABORTED"
    DATA_LOSS = "DATA_LOSS"
    UNIMPLEMENTED = "UNIMPLEMENTED"


class AcclimateError(Exception):
    """Base: `reason` is UPPER_SNAKE and stable, `metadata` holds everything variable in the message."""

    code: Code = Code.INVALID_ARGUMENT

    def __init__(
        self, reason: str, message: str, *, retry_after_seconds: float | None = None, **metadata: object
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.metadata = {key: str(value) for key, value in metadata.items()}


class InvalidArgument(AcclimateError):
    """The request is wrong in itself, whatever the daemon's state."""

    code = Code.INVALID_ARGUMENT


class Unauthenticated(AcclimateError):
    """Nobody said who calls, or the credential is not good; nothing else was looked at."""

    code = Code.UNAUTHENTICATED


class PermissionDenied(AcclimateError):
    """Who calls is known, and may not do this."""

    code = Code.PERMISSION_DENIED


class NotFound(AcclimateError):
    """The model or session named does not exist."""

    code = Code.NOT_FOUND


class AlreadyExists(AcclimateError):
    """A session of this id exists already."""

    code = Code.ALREADY_EXISTS


class FailedPrecondition(AcclimateError):
    """The request is well formed but the resource's state forbids it."""

    code = Code.FAILED_PRECONDITION


class ResourceExhausted(AcclimateError):
    """A queue, quota or budget is full."""

    code = Code.RESOURCE_EXHAUSTED


class Unavailable(AcclimateError):
    """The daemon is starting, draining or stopped."""

    code = Code.UNAVAILABLE


class DeadlineExceeded(AcclimateError):
    """The deadline passed before the work began; nothing was changed."""

    code = Code.DEADLINE_EXCEEDED


class Aborted(AcclimateError):
    """Somebody else has, or changed, what the request is about; nothing was changed. Look again before another try."""

    code = Code.ABORTED


class DataLoss(AcclimateError):
    """What was stored does not hold any more; a retry does not help."""

    code = Code.DATA_LOSS


class Unimplemented(AcclimateError):
    """Part of a public protocol that is not served here, whatever the request says."""

    code = Code.UNIMPLEMENTED
