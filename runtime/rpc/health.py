"""`grpc.health.v1`: the daemon (empty name), each service and each model.

Written out because the reference servicer forgets other watchers of a name when one of them leaves, and keeps
watches open while the server drains.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from acclimate.runtime.errors import NotFound

SERVICE = "grpc.health.v1.Health"
Status = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Serving states; NOT_SERVING until `serve`, again after `drain`, and watches end with `close`."""

    def __init__(self, names: Iterable[str]) -> None:
        self._fixed = tuple(names)
        self._status: int = Status.NOT_SERVING
        self._statuses: dict[str, int] = dict.fromkeys(self._fixed, self._status)
        self._changed = asyncio.Event()
        self._closed = False

    def serve(self) -> None:
        """Everything is SERVING."""
        self._set(Status.SERVING)

    def drain(self) -> None:
        """Nothing is SERVING any more."""
        self._set(Status.NOT_SERVING)

    def models(self, names: Iterable[str]) -> None:
        """These models are served now, and no others."""
        self._statuses = dict.fromkeys((*self._fixed, *names), self._status)
        self._wake()

    def close(self) -> None:
        """End every watch after its last status."""
        self._closed = True
        self._wake()

    async def Check(  # noqa: N802 - the name of the rpc
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """The status of one name; NOT_FOUND for an unknown one, as the health protocol asks."""
        if request.service not in self._statuses:
            raise NotFound(
                "SERVICE_UNKNOWN",
                f"health of {request.service[:64]!r} is not known; ask for one of {sorted(self._statuses)}",
                service=request.service,
            )
        return Status(status=self._statuses[request.service])

    async def Watch(  # noqa: N802 - the name of the rpc
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status of one name, now and at each change; SERVICE_UNKNOWN for an unknown one."""
        last: int | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, Status.SERVICE_UNKNOWN)
            if status != last:
                last = status
                yield Status(status=status)
                continue
            if self._closed:
                return
            await changed.wait()

    def _set(self, status: int) -> None:
        self._status = status
        self._statuses = dict.fromkeys(self._statuses, status)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
