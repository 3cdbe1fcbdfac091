"""`acclimate.v1.ServerService`: what a client may want to know before it sends work."""

from __future__ import annotations

import os
import sys
from typing import Any, TypeAlias

import grpc

from acclimate.adapters.learning.recipes import LANGUAGE_RECIPES
from acclimate.adapters.recipes import RECIPES
from acclimate.runtime.config import Config
from acclimate.runtime.metrics.process import rss_bytes
from acclimate.runtime.rpc.convert_sessions import timestamp
from acclimate.runtime.security.caller import Role, current
from acclimate.runtime.service_protocol import ServiceProtocol
from acclimate.v1 import server_service_pb2 as pb
from acclimate.v1 import server_service_pb2_grpc

SERVICE = "acclimate.v1.ServerService"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ServerServicer(server_service_pb2_grpc.ServerServiceServicer):
    """Facts and limits of this process."""

    def __init__(self, service: ServiceProtocol, config: Config, version: str) -> None:
        self._service = service
        self._config = config
        self._version = version

    async def GetServerInfo(  # noqa: N802
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        """Facts and limits, read now; what the process takes tells of other tenants, so tenants read 0."""
        private = current().role is not Role.TENANT
        return pb.GetServerInfoResponse(
            version=self._version,
            pid=os.getpid() if private else 0,
            start_time=timestamp(self._service.snapshot().started_at),
            rss_bytes=rss_bytes() if private else 0,
            torch_imported="torch" in sys.modules,
            transformers_imported="transformers" in sys.modules,
            onnx_imported="onnx" in sys.modules,
            limits=pb.ServerLimits(
                max_message_bytes=self._config.server.max_message_bytes,
                max_sessions=self._config.sessions.max_sessions,
                recipes=sorted(self._recipes()),
                default_recipe=self._config.sessions.default_recipe,
            ),
            models=[manifest.name for manifest in self._service.models()],
        )

    def _recipes(self) -> set[str]:
        """Names of all that sessions may run; those of language models where one is served."""
        writes = any(self._service.generating.writes(manifest.name) for manifest in self._service.models())
        return {*RECIPES, *LANGUAGE_RECIPES} if writes else set(RECIPES)


def register(server: grpc.aio.Server, servicer: ServerServicer) -> None:
    """Serve it."""
    server_service_pb2_grpc.add_ServerServiceServicer_to_server(servicer, server)
