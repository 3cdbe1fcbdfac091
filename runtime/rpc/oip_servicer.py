"""`inference.GRPCInferenceService`: the Open Inference Protocol, and what is served of Triton's extensions of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
from google.protobuf.message_factory import GetMessageClass

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.oip.v1 import model_config_pb2, model_repository_pb2, model_statistics_pb2
from acclimate.runtime.clock import Clock
from acclimate.runtime.config import Config
from acclimate.runtime.errors import FailedPrecondition, Unimplemented
from acclimate.runtime.rpc import convert_config, convert_oip, convert_repository, convert_statistics
from acclimate.runtime.rpc.oip_stream import Streams
from acclimate.runtime.rpc.oip_text import Send, Texts
from acclimate.runtime.service_protocol import ServiceProtocol

SERVICE = "inference.GRPCInferenceService"
EXTENSIONS = (
    "sequence",
    "sequence(string_id)",
    "parameters",
    "schedule_policy",
    "model_configuration",
    "statistics",
    "model_repository",
)
UNSERVED = {
    "SystemSharedMemoryStatus": "shared memory is not served here; send the values themselves",
    "SystemSharedMemoryRegister": "shared memory is not served here; send the values themselves",
    "SystemSharedMemoryUnregister": "shared memory is not served here; send the values themselves",
    "CudaSharedMemoryStatus": "CUDA shared memory is not served here; send the values themselves",
    "CudaSharedMemoryRegister": "CUDA shared memory is not served here; send the values themselves",
    "CudaSharedMemoryUnregister": "CUDA shared memory is not served here; send the values themselves",
    "TraceSetting": "traces cannot be set by rpc here",
    "LogSettings": "logs cannot be set by rpc here; the operator sets logging.level",
}
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class InferenceServicer:
    """One method per rpc, each a conversion around one call of the service."""

    def __init__(self, service: ServiceProtocol, clock: Clock, version: str, config: Config, streams: Streams) -> None:
        self._service = service
        self._clock = clock
        self._version = version
        self._config = config
        self._streams = streams
        self._texts = Texts(service, clock)

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
        if self._texts.writes(request.model_name):
            return await self._texts.answer(request, remaining)
        reply = await self._service.infer(convert_oip.infer_request(request, self._clock.monotonic(), remaining))
        return convert_oip.infer_response(reply, raw=bool(request.raw_input_contents))

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        """Inferences on one stream; a request that is refused says so in its reply."""

        async def infer(request: oip.ModelInferRequest) -> oip.ModelInferResponse:
            return await self.ModelInfer(request, context)

        async def write(request: oip.ModelInferRequest, send: Send) -> oip.ModelInferResponse:
            return await self._texts.answer(request, context.time_remaining(), send)

        replies = self._streams.serve(requests, infer, lambda model: write if self._texts.writes(model) else None)
        try:
            async for reply in replies:
                yield reply
        finally:
            await replies.aclose()

    async def ModelConfig(  # noqa: N802
        self, request: model_config_pb2.ModelConfigRequest, context: Context
    ) -> model_config_pb2.ModelConfigResponse:
        """One model's configuration; NotFound if it is not served."""
        manifest = self._service.model(request.name, request.version)
        return model_config_pb2.ModelConfigResponse(config=convert_config.model_config(manifest, self._config))

    async def ModelStatistics(  # noqa: N802
        self, request: model_statistics_pb2.ModelStatisticsRequest, context: Context
    ) -> model_statistics_pb2.ModelStatisticsResponse:
        """What one model, or each, has done; NotFound if it is not served."""
        usages = self._service.usages(request.name, request.version)
        return model_statistics_pb2.ModelStatisticsResponse(
            model_stats=[convert_statistics.model_statistics(manifest, usage) for manifest, usage in usages]
        )

    async def RepositoryIndex(  # noqa: N802
        self, request: model_repository_pb2.RepositoryIndexRequest, context: Context
    ) -> model_repository_pb2.RepositoryIndexResponse:
        """What is served or could be."""
        convert_repository.refuse_repository(request.repository_name)
        return convert_repository.index_response(await self._service.repository.index(), request.ready)

    async def RepositoryModelLoad(  # noqa: N802
        self, request: model_repository_pb2.RepositoryModelLoadRequest, context: Context
    ) -> model_repository_pb2.RepositoryModelLoadResponse:
        """Serve a model, in the place of what serves its name so far."""
        name, version, unfit = convert_repository.load_request(request)
        self._refuse_control()
        await self._service.repository.load(name, version, unfit)
        return model_repository_pb2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802
        self, request: model_repository_pb2.RepositoryModelUnloadRequest, context: Context
    ) -> model_repository_pb2.RepositoryModelUnloadResponse:
        """Serve a model no more."""
        name, unfit = convert_repository.unload_request(request)
        self._refuse_control()
        await self._service.repository.unload(name, unfit)
        return model_repository_pb2.RepositoryModelUnloadResponse()

    def _refuse_control(self) -> None:
        if not self._config.repository.remote_control:
            raise FailedPrecondition(
                "MODEL_CONTROL_OFF",
                "models are not changed by rpc here; the operator can allow it with repository.remote_control, or send "
                "the daemon SIGHUP",
            )


def register(server: grpc.aio.Server, servicer: InferenceServicer) -> None:
    """Serve it under the protocol's own name, which is not that of the package it is compiled in."""
    methods = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    handlers = {method.name: _handler(servicer, method) for method in methods}
    handlers |= {name: grpc.unary_unary_rpc_method_handler(_unserved(name, why)) for name, why in UNSERVED.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


def _handler(servicer: InferenceServicer, method: Any) -> Any:
    serve, serialise = getattr(servicer, method.name), GetMessageClass(method.output_type).SerializeToString
    if method.client_streaming:
        # Its requests are decoded one by one, so that a malformed one is answered like any other that is refused.
        return grpc.stream_stream_rpc_method_handler(serve, response_serializer=serialise)
    decode = GetMessageClass(method.input_type).FromString
    return grpc.unary_unary_rpc_method_handler(serve, request_deserializer=decode, response_serializer=serialise)


def _unserved(name: str, why: str) -> Any:
    """A rpc that Triton has and that is not served; neither reflection nor the metadata's extensions list it."""

    async def refuse(_request: bytes, _context: Context) -> bytes:
        raise Unimplemented("RPC_UNSERVED", f"{name}: {why}", rpc=name)

    return refuse
