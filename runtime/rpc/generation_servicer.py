"""`acclimate.v1.GenerationService`: language models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from acclimate.runtime.rpc import convert_generation as convert
from acclimate.runtime.rpc import convert_lessons
from acclimate.runtime.service_protocol import ServiceProtocol
from acclimate.v1 import generation_service_pb2 as pb
from acclimate.v1 import generation_service_pb2_grpc

SERVICE = "acclimate.v1.GenerationService"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class GenerationServicer(generation_service_pb2_grpc.GenerationServiceServicer):
    """One method per rpc, each a conversion around one call of the service."""

    def __init__(self, service: ServiceProtocol) -> None:
        self._service = service

    async def Generate(  # noqa: N802
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Stream a text."""
        async with aclosing(self._service.generating.generate(convert.generate_request(request))) as replies:
            async for reply in replies:
                yield convert.generate_response(reply)

    async def Learn(  # noqa: N802
        self, request: pb.LearnRequest, context: Context
    ) -> AsyncIterator[pb.LearnResponse]:
        """Learn, and say how it goes."""
        async with aclosing(self._service.generating.learn(convert_lessons.learn_request(request))) as updates:
            async for update in updates:
                yield convert_lessons.learn_response(update)

    async def Score(  # noqa: N802
        self, request: pb.ScoreRequest, context: Context
    ) -> pb.ScoreResponse:
        """Score texts."""
        return convert.score_response(await self._service.generating.score(convert.score_request(request)))


def register(server: grpc.aio.Server, servicer: GenerationServicer) -> None:
    """Serve it."""
    generation_service_pb2_grpc.add_GenerationServiceServicer_to_server(servicer, server)
