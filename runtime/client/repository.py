"""Which models a daemon serves or could serve, and changing that; the daemon has to allow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import grpc

from acclimate.oip.v1 import model_repository_pb2 as pb
from acclimate.runtime.client.channel import OIP_SERVICE
from acclimate.runtime.client.errors import client_error
from acclimate.runtime.client.sync import Client
from acclimate.runtime.rpc.convert_repository import SESSIONS, VERSION

Unfit = Literal["refuse", "reset", "drop"]
# A large bundle is hashed, and its graphs are optimised, before it is served.
LOAD_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class IndexedModel:
    """One version of one model: `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`, and why it is not served."""

    name: str
    version: str
    state: str
    reason: str


def model_index(client: Client, *, ready: bool = False) -> tuple[IndexedModel, ...]:
    """What is served or could be; with `ready`, what is served.

    Raises:
        ClientError: the daemon refused or could not be reached.
    """
    request = pb.RepositoryIndexRequest(ready=ready)
    reply = _call(client, "RepositoryIndex", request, pb.RepositoryIndexResponse)
    return tuple(IndexedModel(e.name, e.version, e.state, e.reason) for e in reply.models)


def load_model(client: Client, name: str, *, version: str = "", sessions: Unfit = "refuse") -> None:
    """Serve a model, in the place of what serves its name so far.

    Args:
        client: of the daemon.
        name: the model's.
        version: by default the highest there is.
        sessions: what becomes of adapted sessions that cannot be carried over.

    Raises:
        ClientError: the daemon refused or could not be reached; then what was served is served on.
    """
    given = {SESSIONS: sessions} | ({VERSION: version} if version else {})
    request = pb.RepositoryModelLoadRequest(model_name=name, parameters=_texts(given))
    _call(client, "RepositoryModelLoad", request, pb.RepositoryModelLoadResponse)


def unload_model(client: Client, name: str, *, sessions: Literal["refuse", "drop"] = "refuse") -> None:
    """Serve a model no more.

    Args:
        client: of the daemon.
        name: the model's.
        sessions: what becomes of its sessions.

    Raises:
        ClientError: the daemon refused or could not be reached.
    """
    request = pb.RepositoryModelUnloadRequest(model_name=name, parameters=_texts({SESSIONS: sessions}))
    _call(client, "RepositoryModelUnload", request, pb.RepositoryModelUnloadResponse)


def _texts(given: Mapping[str, str]) -> dict[str, pb.ModelRepositoryParameter]:
    return {name: pb.ModelRepositoryParameter(string_param=value) for name, value in given.items()}


def _call(client: Client, rpc: str, request: Any, response: Any) -> Any:
    call = client._channel.unary_unary(
        f"/{OIP_SERVICE}/{rpc}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=response.FromString,
    )
    try:
        return call(request, timeout=LOAD_SECONDS)
    except grpc.RpcError as error:
        raise client_error(error) from error
