"""How the client connects: channel options, retries, and the rpcs of the Open Inference service by name."""

from __future__ import annotations

import json
from typing import Any, Protocol

from acclimate.oip.v1 import inference_pb2 as oip

DEFAULT_TIMEOUT_SECONDS = 10.0
DEFAULT_MAX_MESSAGE_BYTES = 64 * 2**20
OIP_SERVICE = "inference.GRPCInferenceService"

# A request that may have been executed is repeated only where a second execution changes nothing: never
# ModelInfer (the session would learn twice), nor the calls that create, delete or count labels.
IDEMPOTENT = {
    OIP_SERVICE: ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"),
    "acclimate.v1.SessionService": ("ExportSession", "GetSession", "ListSessions", "ResetSession"),
    "acclimate.v1.ServerService": ("GetServerInfo",),
}


def options(max_message_bytes: int) -> list[tuple[str, int | str]]:
    """Channel options: size limits and a retry policy for UNAVAILABLE on idempotent rpcs."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(service_config())),
    ]


def service_config() -> dict[str, Any]:
    """The gRPC service config: up to four attempts, throttled when most attempts fail (gRFC A6)."""
    methods = [{"service": service, "method": method} for service, names in IDEMPOTENT.items() for method in names]
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return {
        "methodConfig": [{"name": methods, "retryPolicy": policy}],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }


class Channel(Protocol):
    """A blocking or an asyncio channel."""

    def unary_unary(self, method: str, request_serializer: Any = ..., response_deserializer: Any = ...) -> Any:
        """A callable for one rpc."""


class InferenceStub:
    """The rpcs of `inference.GRPCInferenceService` that the client uses, over our own messages."""

    def __init__(self, channel: Channel) -> None:
        self.ServerReady = _rpc(channel, "ServerReady", oip.ServerReadyRequest, oip.ServerReadyResponse)
        self.ModelMetadata = _rpc(channel, "ModelMetadata", oip.ModelMetadataRequest, oip.ModelMetadataResponse)
        self.ModelInfer = _rpc(channel, "ModelInfer", oip.ModelInferRequest, oip.ModelInferResponse)


def _rpc(channel: Channel, name: str, request: Any, response: Any) -> Any:
    return channel.unary_unary(
        f"/{OIP_SERVICE}/{name}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
