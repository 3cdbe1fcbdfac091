"""The real service over the real gRPC server on a loopback port, with the NumPy reference engine inside.

The event loop runs in a thread of its own, so that blocking clients can be used as their users do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import numpy as np

from acclimate.runtime.config import Config
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.engines.reference import ReferenceEngine
from acclimate.runtime.rpc.server import RpcServer, build_server
from acclimate.runtime.service_protocol import ServiceProtocol
from acclimate.runtime.tracing.base import Tracer
from acclimate.runtime.wiring import build_service, open_store

T = TypeVar("T")

FEATURES, CLASSES = 6, 4
MODEL = "toy"
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Loopback:
    """A running server: where it listens, what stands behind it, and a way onto its event loop."""

    target: str
    service: ServiceProtocol
    rpc: RpcServer
    loop: asyncio.AbstractEventLoop

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(call, self.loop).result(PATIENCE_SECONDS)

    def channel(self, **options: int) -> grpc.Channel:
        """A plain channel to it."""
        named = [(f"grpc.{key}", value) for key, value in options.items()]
        return grpc.insecure_channel(self.target, options=named)


def engine(name: str = MODEL) -> ReferenceEngine:
    """A small classifier with fixed random weights."""
    random = np.random.default_rng(7)
    return ReferenceEngine(
        name=name,
        weights=random.normal(size=(FEATURES, CLASSES)).astype(np.float32),
        bias=np.zeros(CLASSES, np.float32),
        mean=np.zeros(FEATURES, np.float32),
        var=np.ones(FEATURES, np.float32),
        canary_inputs=random.normal(size=(16, FEATURES)).astype(np.float32),
    )


def samples(rows: int = 3, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Inputs `[rows, FEATURES]`."""
    return np.random.default_rng(seed).normal(size=(rows, FEATURES)).astype(np.float32)


def config(**server: Any) -> Config:
    """Defaults, on free ports."""
    return Config(server={"grpc_port": 0, "http_port": 0, **server})  # type: ignore[arg-type]


@contextmanager
def serving(
    settings: Config | None = None,
    wrap: Callable[[ServiceProtocol], ServiceProtocol] = lambda service: service,
    tracer: Tracer | None = None,
    languages: Mapping[str, LanguageEngine] | None = None,
) -> Iterator[Loopback]:
    """Serve until the block ends; `wrap` may put something between the edge and the service."""
    settings = settings or config()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server loop")
    thread.start()

    async def start() -> tuple[ServiceProtocol, RpcServer]:
        service = build_service(
            settings, {MODEL: engine()}, store=open_store(settings), tracer=tracer, languages=languages
        )
        service.start()
        rpc = build_server(wrap(service), settings, tracer=tracer)
        await rpc.start()
        return service, rpc

    async def stop(service: ServiceProtocol, rpc: RpcServer) -> None:
        rpc.health.drain()
        await service.drain(5.0)
        await rpc.stop()

    try:
        service, rpc = asyncio.run_coroutine_threadsafe(start(), loop).result(PATIENCE_SECONDS)
        try:
            yield Loopback(f"127.0.0.1:{rpc.port}", service, rpc, loop)
        finally:
            asyncio.run_coroutine_threadsafe(stop(service, rpc), loop).result(PATIENCE_SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_SECONDS)
        loop.close()
