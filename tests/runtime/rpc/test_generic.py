"""Generated code registers its methods with gRPC's core as well; the daemon's are looked up by name alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from grpc.aio._server import Server

from tests.runtime.rpc.loopback import serving

# Reflection's own code asks what kind of server it is given, and so gets the one there is.
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


def test_no_method_of_ours_is_registered_with_grpcs_core(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[str] = []
    inner = Server.add_registered_method_handlers

    def add(self: Server, service: str, handlers: Mapping[str, Any]) -> None:
        registered.append(service)
        inner(self, service, handlers)

    monkeypatch.setattr(Server, "add_registered_method_handlers", add)
    with serving():
        assert set(registered) <= {REFLECTION}
