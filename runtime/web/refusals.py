"""Refusals over HTTP: the codes of `runtime/errors.py` as google.api.HttpRule maps them, and the error as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from http import HTTPStatus

from starlette.responses import JSONResponse, Response

from acclimate.runtime.errors import AcclimateError, Code
from acclimate.runtime.web.documents import NO_STORE, Problem

STATUS = {
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Code.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    Code.ABORTED: HTTPStatus.CONFLICT,
    Code.DATA_LOSS: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
}


def refusal(error: AcclimateError) -> Response:
    """The response for an error that a client can be told about."""
    headers = dict(NO_STORE)
    if error.code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    told = Problem(error.code.value, error.reason, error.message, error.metadata)
    return JSONResponse({"error": asdict(told)}, STATUS[error.code], headers)


def unknown(status: int, reason: str) -> Response:
    """The response for a path or method that the API does not have."""
    code = Code.NOT_FOUND if status == HTTPStatus.NOT_FOUND else Code.UNIMPLEMENTED
    told = Problem(code.value, reason, f"{HTTPStatus(status).phrase.lower()}; docs/web.md lists what there is", {})
    return JSONResponse({"error": asdict(told)}, status, NO_STORE)
