"""Every rpc that the daemon serves, as its descriptors say, and one way to send bytes to any of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from acclimate.runtime.rpc.reflection import descriptor_pool
from acclimate.runtime.rpc.server import SERVICES

TIMEOUT_SECONDS = 30.0
# How long a watch that was not refused at once is given to be refused after all.
REFUSAL_SECONDS = 0.05
ENDLESS = "/acclimate.v1.SessionService/WatchSessions"
FIRST_ONLY = "/grpc.health.v1.Health/Watch"


@dataclass(frozen=True)
class Outcome:
    """How an rpc ended; `details` are the packed `google.rpc.Status`, replies as bytes."""

    code: grpc.StatusCode
    message: str = ""
    details: bytes = b""
    replies: tuple[bytes, ...] = ()


def methods() -> dict[str, MethodDescriptor]:
    """`/package.Service/Method` -> its descriptor, over every service but reflection itself."""
    pool = descriptor_pool()
    services = [pool.FindServiceByName(name) for name in SERVICES]
    return {f"/{service.full_name}/{method.name}": method for service in services for method in service.methods}


def ask(
    channel: grpc.Channel, method: str, payload: bytes, descriptor: MethodDescriptor, metadata: Any = ()
) -> Outcome:
    """Send one message, whatever the kind of the rpc, and say how it ended; a watch that stands is left, and OK."""
    try:
        return Outcome(grpc.StatusCode.OK, replies=_replies(channel, method, payload, descriptor, metadata))
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        return Outcome(error.code(), error.details() or "", trailers.get("grpc-status-details-bin", b""))


def _replies(
    channel: grpc.Channel, method: str, payload: bytes, descriptor: MethodDescriptor, metadata: Any
) -> tuple[bytes, ...]:
    options: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "metadata": tuple(metadata)}
    if descriptor.client_streaming:
        return tuple(channel.stream_stream(method)(iter([payload]), **options))
    if not descriptor.server_streaming:
        return (channel.unary_unary(method)(payload, **options),)
    call = channel.unary_stream(method)(payload, **options)
    if method == FIRST_ONLY:
        first = next(call)
        call.cancel()
        return (first,)
    ended = threading.Event()
    if not call.add_callback(ended.set) or ended.wait(REFUSAL_SECONDS):
        return tuple(call)
    call.cancel()
    return ()
