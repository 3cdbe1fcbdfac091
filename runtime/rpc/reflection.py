"""Server reflection over a private descriptor pool.

The Open Inference messages are compiled as `acclimate.oip.v1` but served as `inference`: the pool holds a
copy under that name, so that reflection clients see what the wire says while tritonclient's own `inference`
stubs stay alone in the process's default pool.
"""

from __future__ import annotations

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from acclimate.oip.v1 import inference_pb2, model_config_pb2, model_repository_pb2, model_statistics_pb2
from acclimate.v1 import generation_service_pb2, server_service_pb2, session_service_pb2

FILES = (
    generation_service_pb2.DESCRIPTOR,
    server_service_pb2.DESCRIPTOR,
    session_service_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
)
PUBLIC = (
    model_config_pb2.DESCRIPTOR,
    model_repository_pb2.DESCRIPTOR,
    model_statistics_pb2.DESCRIPTOR,
    inference_pb2.DESCRIPTOR,
)
PUBLIC_PACKAGE = "inference"


def enable(server: grpc.aio.Server, services: tuple[str, ...]) -> None:
    """Serve reflection for these fully qualified service names and for reflection itself."""
    names = (*services, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, descriptor_pool())


def descriptor_pool() -> DescriptorPool:
    """Every served file, the Open Inference ones renamed to the package they are served under."""
    pool = DescriptorPool()
    added: set[str] = set()
    for descriptor in FILES:
        _add(pool, descriptor, added)
    for descriptor in PUBLIC:
        pool.AddSerializedFile(_renamed(descriptor).SerializeToString())
    return pool


def _add(pool: DescriptorPool, descriptor: FileDescriptor, added: set[str]) -> None:
    if descriptor.name in added:
        return
    added.add(descriptor.name)
    for dependency in descriptor.dependencies:
        _add(pool, dependency, added)
    pool.AddSerializedFile(descriptor.serialized_pb)


def _renamed(descriptor: FileDescriptor) -> FileDescriptorProto:
    file = FileDescriptorProto()
    descriptor.CopyToProto(file)
    old, new = f".{file.package}.", f".{PUBLIC_PACKAGE}."
    file.package = PUBLIC_PACKAGE
    file.name = _base(descriptor.name)
    file.dependency[:] = [_base(name) for name in file.dependency]
    for message in file.message_type:
        _rename_types(message, old, new)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(old, new, 1)
            method.output_type = method.output_type.replace(old, new, 1)
    return file


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _rename_types(message: DescriptorProto, old: str, new: str) -> None:
    for field in message.field:
        if field.type_name.startswith(old):
            field.type_name = field.type_name.replace(old, new, 1)
    for nested in message.nested_type:
        _rename_types(nested, old, new)
