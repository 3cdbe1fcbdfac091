"""`inference.GRPCInferenceService`: the six rpcs of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc
from google.protobuf.message_factory import GetMessageClass

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.clock import Clock
from acclimate.runtime.rpc import convert_oip
from acclimate.runtime.service_protocol import ServiceProtocol

SERVICE = "inference.GRPCInferenceService"
EXTENSIONS = ("sequence", "sequence(string_id)", "parameters")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class InferenceServicer:
    """One method per rpc, each a conversion around one call of the service."""

    def __init__(self, service: ServiceProtocol, clock: Clock, version: str) -> None:
        self._service = service
        self._clock = clock
        self._version = version

    async def ServerLive(  # noqa: N802
        self, request: oip.ServerLiveRequest, context: Context
    ) -> oip.ServerLiveResponse:
        """Whoever can answer is alive."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802
        self, request: oip.ServerReadyRequest, context: Context
    ) -> oip.ServerReadyResponse:
        """Whether new work is accepted."""
        return oip.ServerReadyResponse(ready=self._service.ready)

    async def ModelReady(  # noqa: N802
        self, request: oip.ModelReadyRequest, context: Context
    ) -> oip.ModelReadyResponse:
        """Whether one model accepts work; NotFound if it is not served."""
        self._service.model(request.name, request.version)
        return oip.ModelReadyResponse(ready=self._service.ready)

    async def ServerMetadata(  # noqa: N802
        self, request: oip.ServerMetadataRequest, context: Context
    ) -> oip.ServerMetadataResponse:
        """Name, version and extensions."""
        return oip.ServerMetadataResponse(name="acclimate", version=self._version, extensions=EXTENSIONS)

    async def ModelMetadata(  # noqa: N802
        self, request: oip.ModelMetadataRequest, context: Context
    ) -> oip.ModelMetadataResponse:
        """Tensors and properties of one model; NotFound if it is not served."""
        return convert_oip.model_metadata(self._service.model(request.name, request.version))

    async def ModelInfer(  # noqa: N802
        self, request: oip.ModelInferRequest, context: Context
    ) -> oip.ModelInferResponse:
        """One inference, answered in the form (raw or typed) that the request used."""
        remaining: float | None = context.time_remaining()
        reply = await self._service.infer(convert_oip.infer_request(request, self._clock.monotonic(), remaining))
        return convert_oip.infer_response(reply, raw=bool(request.raw_input_contents))


def register(server: grpc.aio.Server, servicer: InferenceServicer) -> None:
    """Serve it under the protocol's own name, which is not that of the package it is compiled in."""
    methods = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, method.name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
        for method in methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
