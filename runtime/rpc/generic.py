"""A server as generated code sees it, that looks every rpc up by its name.

Generated code also registers each method with gRPC's core. grpcio's asyncio server (1.85) waits for a call of each
registered method apart, and each rpc that comes, of whatever method, has it begin and end all these waits anew: with
our thirty-odd methods an empty rpc takes a sixth longer (`bare_registered_p50_ms` of `benchmarks.load`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc


class Generic:
    """Passes a service's handlers on, and registers none of its methods."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve these."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The same methods again, by name; `add_generic_rpc_handlers` has them already."""
