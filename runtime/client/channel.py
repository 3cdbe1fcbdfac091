"""How the client connects: channel options, and the retries that gRPC does by itself (gRFC A6)."""

from __future__ import annotations

import json
from typing import Any

DEFAULT_TIMEOUT_SECONDS = 10.0
DEFAULT_MAX_MESSAGE_BYTES = 64 * 2**20
DEFAULT_KEEPALIVE_SECONDS = 60.0
DEFAULT_ATTEMPTS = 4
MAX_ATTEMPTS = 5
OIP_SERVICE = "inference.GRPCInferenceService"
SESSION_SERVICE = "acclimate.v1.SessionService"
SERVER_SERVICE = "acclimate.v1.ServerService"
GENERATION_SERVICE = "acclimate.v1.GenerationService"

# How long a ping may go unanswered before the connection counts as lost, and how soon after a failure the next
# attempt to connect begins: gRPC's own delays grow to two minutes, long after a daemon is back.
KEEPALIVE_TIMEOUT_MS = 10_000
FIRST_RECONNECT_MS, LAST_RECONNECT_MS = 100, 2_000

# A request that may have been executed is repeated only where a second execution changes nothing: never
# ModelInfer (the session would learn twice), nor the calls that delete. Those that create or count carry a
# `request_id`, by which the daemon knows them again.
IDEMPOTENT = {
    OIP_SERVICE: ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"),
    SESSION_SERVICE: (
        "CreateSession",
        "ExportSession",
        "ForkSession",
        "GetSession",
        "GetSnapshot",
        "ListSessions",
        "ListSnapshots",
        "PauseSession",
        "ResetSession",
        "ResumeSession",
        "SendFeedback",
        "SnapshotSession",
        "UpdateSession",
    ),
    SERVER_SERVICE: ("GetServerInfo",),
    GENERATION_SERVICE: ("Score",),
}


def options(max_message_bytes: int, keepalive_seconds: float | None, attempts: int) -> list[tuple[str, int | str]]:
    """Channel options: size limits, keepalive while calls are under way, prompt reconnecting, retries.

    Raises:
        ValueError: `attempts` is not 1 to 5, which is what gRPC takes, or the keepalive is not positive.
    """
    if not 1 <= attempts <= MAX_ATTEMPTS:
        raise ValueError(f"attempts is {attempts}; gRPC takes 1 (no retries) to {MAX_ATTEMPTS}")
    chosen: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", FIRST_RECONNECT_MS),
        ("grpc.min_reconnect_backoff_ms", FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", LAST_RECONNECT_MS),
        ("grpc.enable_retries", int(attempts > 1)),
        ("grpc.service_config", json.dumps(service_config(attempts))),
    ]
    if keepalive_seconds is not None:
        if not keepalive_seconds > 0:
            raise ValueError(f"keepalive_seconds is {keepalive_seconds}; give a positive number, or None for no pings")
        chosen += [
            ("grpc.keepalive_time_ms", max(1, round(keepalive_seconds * 1e3))),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 0),
            # A watch may be silent for hours; its pings are not to stop after the second.
            ("grpc.http2.max_pings_without_data", 0),
        ]
    return chosen


def service_config(attempts: int = DEFAULT_ATTEMPTS) -> dict[str, Any]:
    """The gRPC service config: up to `attempts` tries, throttled when most attempts fail.

    UNAVAILABLE is tried again on idempotent rpcs. RESOURCE_EXHAUSTED is on all: the daemon says it before it
    begins, always with `grpc-retry-pushback-ms`, which gRPC obeys: a delay, or -1 where it would not pass. The other
    source of that code, messages that are too large, the client checks before it sends (`calling.py`).
    """
    if attempts == 1:
        return {}
    named = [{"service": service, "method": method} for service, methods in IDEMPOTENT.items() for method in methods]
    return {
        "methodConfig": [
            {"name": named, "retryPolicy": _policy(attempts, "UNAVAILABLE", "RESOURCE_EXHAUSTED")},
            {"name": [{}], "retryPolicy": _policy(attempts, "RESOURCE_EXHAUSTED")},
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }


def _policy(attempts: int, *codes: str) -> dict[str, Any]:
    return {
        "maxAttempts": attempts,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": list(codes),
    }
