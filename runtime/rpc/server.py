"""The gRPC server: every service on one port, with size limits, health and reflection."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from acclimate.oip.v1 import inference_pb2
from acclimate.runtime.clock import Clock, SystemClock
from acclimate.runtime.config import Config
from acclimate.runtime.metrics.process import version
from acclimate.runtime.rpc import (
    generation_servicer,
    health,
    oip_servicer,
    reflection,
    server_servicer,
    session_servicer,
)
from acclimate.runtime.rpc.creating import Creations
from acclimate.runtime.rpc.credentials import server_credentials
from acclimate.runtime.rpc.entrance import Entrance
from acclimate.runtime.rpc.gate import Gate
from acclimate.runtime.rpc.generic import Generic
from acclimate.runtime.rpc.interceptor import Edge, short_name
from acclimate.runtime.rpc.limits import MessageLimits
from acclimate.runtime.rpc.oip_stream import Streams
from acclimate.runtime.rpc.open_streams import OpenStreams
from acclimate.runtime.rpc.stats import RpcStats
from acclimate.runtime.rpc.traced import Traced
from acclimate.runtime.security import setup
from acclimate.runtime.security.guard import Guard
from acclimate.runtime.service_protocol import ServiceProtocol
from acclimate.runtime.tracing.base import Tracer
from acclimate.v1 import generation_service_pb2, server_service_pb2, session_service_pb2

SERVICES = (
    oip_servicer.SERVICE,
    session_servicer.SERVICE,
    generation_servicer.SERVICE,
    server_servicer.SERVICE,
    health.SERVICE,
)

# Clients on flaky links ping more often than gRPC's default of five minutes allows them to.
MIN_PING_INTERVAL_MS = 10_000


@dataclass(frozen=True, slots=True)
class RpcServer:
    """A bound server.

    In order: `start` once the service is ready; `drain` when draining begins, so that clients look elsewhere; then the
    service's own drain; then `stop`.
    """

    server: grpc.aio.Server
    port: int
    health: health.Health
    stats: RpcStats
    streams: OpenStreams
    edge: Edge

    async def start(self) -> None:
        """Accept rpcs, and say so to health checks."""
        await self.server.start()
        self.health.serve()

    def drain(self) -> None:
        """Say that this server goes away: to health checks, on streams once they are answered, and of sessions."""
        self.health.drain()
        self.streams.drain()
        self.edge.drain()

    async def stop(self, grace_seconds: float = 1.0) -> None:
        """Refuse new rpcs, give those under way `grace_seconds` to finish, cancel the rest."""
        self.drain()
        self.health.close()
        await self.server.stop(grace_seconds)


def build_server(
    service: ServiceProtocol,
    config: Config,
    clock: Clock | None = None,
    guard: Guard | None = None,
    tracer: Tracer | None = None,
) -> RpcServer:
    """Bind the port and register every service; call it on the running event loop.

    Args:
        service: what answers.
        config: `server.host`, `server.grpc_port` (0 picks a free one), limits, TLS.
        clock: the service's clock, on which deadlines are given to it; the system's by default.
        guard: who may call; made from the configuration by default.
        tracer: what makes spans of rpcs and inferences, or None.

    Raises:
        OSError: EADDRINUSE, the port is taken (or the address cannot be bound).
        SecurityError: a certificate, key or token file cannot be used.
    """
    stats = RpcStats(methods())
    entrance = Entrance(service.admission, service.generating.writes if service.generating.any else None)
    gate = Gate(guard or setup.guard(config, clock or SystemClock()), stats, entrance)
    edge = Edge(stats, _message_limits(config), entrance)
    service = service if tracer is None else tracer.around(service)
    traced = () if tracer is None else (Traced(tracer),)
    server = grpc.aio.server(
        interceptors=(*traced, gate, edge),
        options=_options(config.server.max_message_bytes, config.limits.max_metadata_bytes),
    )
    release = version()
    sizes, opened = _message_limits(config), OpenStreams()
    streams = Streams(config.open_inference.stream_requests, stats, sizes, service.admission, opened)
    inference = oip_servicer.InferenceServicer(service, clock or SystemClock(), release, config, streams)
    oip_servicer.register(server, inference)
    generic: Any = Generic(server)
    session_servicer.register(generic, session_servicer.SessionServicer(service, Creations(sizes, opened)))
    generation_servicer.register(generic, generation_servicer.GenerationServicer(service))
    server_servicer.register(generic, server_servicer.ServerServicer(service, config, release))
    states = health.Health(("", *SERVICES))
    service.repository.listen(lambda: states.models([manifest.name for manifest in service.models()]))
    states.models([manifest.name for manifest in service.models()])
    health_pb2_grpc.add_HealthServicer_to_server(states, generic)
    reflection.enable(server, SERVICES)
    return RpcServer(server, _bind(server, config), states, stats, opened, edge)


def methods() -> tuple[str, ...]:
    """`Service/Method` of every rpc of ours and of the Open Inference Protocol."""
    files = (
        inference_pb2.DESCRIPTOR,
        session_service_pb2.DESCRIPTOR,
        generation_service_pb2.DESCRIPTOR,
        server_service_pb2.DESCRIPTOR,
    )
    services = [service for file in files for service in file.services_by_name.values()]
    return tuple(
        short_name(f"/{service.full_name}/{method.name}") for service in services for method in service.methods
    )


def _message_limits(config: Config) -> MessageLimits:
    chosen = config.limits
    return MessageLimits(
        chosen.max_tensors,
        chosen.max_parameters,
        chosen.max_name_length,
        chosen.max_parameter_bytes,
        chosen.max_text_bytes,
    )


def _options(max_message_bytes: int, max_metadata_bytes: int) -> list[tuple[str, int]]:
    # gRPC counts 32 bytes more for each entry, and refuses without a reason; ours comes first.
    metadata = 2 * max_metadata_bytes + 2**14
    return [
        ("grpc.max_metadata_size", metadata),
        ("grpc.absolute_max_metadata_size", metadata),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Two daemons on one port would share its connections at random and split the sessions between them.
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ]


def _bind(server: grpc.aio.Server, config: Config) -> int:
    """Bind and say which port it became. A taken one is found first, for gRPC would log pages about it."""
    host, port, files = config.server.host, config.server.grpc_port, setup.tls_files(config.security)
    credentials = None if files is None else server_credentials(files)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        _probe(host, port)
        return (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
    except (OSError, RuntimeError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EADDRINUSE
        raise OSError(
            number,
            f"cannot listen for gRPC on {address} ({cause}); stop what uses the port, or choose another with "
            "--grpc-port (0 picks a free one)",
        ) from error


def _probe(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # As a server would: without it, connections of the last daemon that still linger look like a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)
