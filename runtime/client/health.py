"""Whether a daemon, a service or a model serves, by `grpc.health.v1`; the daemon asks for no credential."""

from __future__ import annotations

from grpc_health.v1 import health_pb2

from acclimate.runtime.client.operations import Operation
from acclimate.runtime.client.sync import Client

PATH = "/grpc.health.v1.Health/Check"


def status(client: Client, service: str = "", *, timeout_seconds: float | None = None) -> str:
    """`SERVING` or `NOT_SERVING`.

    Args:
        client: of the daemon.
        service: full name of a service, or name of a model; empty: the daemon.
        timeout_seconds: deadline; the client's own by default.

    Raises:
        ClientError: NOT_FOUND for a name that the daemon does not know; it could not be reached.
    """
    message = health_pb2.HealthCheckResponse
    request = health_pb2.HealthCheckRequest(service=service)
    asked = Operation(PATH, request, message, lambda reply: str(message.ServingStatus.Name(reply.status)))
    return client._calls.call(asked, timeout_seconds)
