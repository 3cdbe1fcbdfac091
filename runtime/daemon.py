"""The daemon's life: load, bind, say so, serve, drain.

On standard output it writes one JSON line, when it is ready; everything else is a log on standard error.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog

from acclimate.adapters.manifest import Manifest
from acclimate.runtime import logs, wiring
from acclimate.runtime.clock import SystemClock
from acclimate.runtime.config import Config
from acclimate.runtime.config_security import is_loopback
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.metrics.collector import registry
from acclimate.runtime.metrics.http import start_http
from acclimate.runtime.metrics.language import LanguageCollector
from acclimate.runtime.metrics.process import version
from acclimate.runtime.rpc.server import build_server
from acclimate.runtime.security import setup
from acclimate.runtime.security.guard import Guard
from acclimate.runtime.supervision import Supervisor
from acclimate.runtime.tracing.base import Tracer
from acclimate.runtime.tracing.opening import opened
from acclimate.runtime.web.bridge import Bridge
from acclimate.runtime.web.page import page

log = structlog.stdlib.get_logger("acclimate.daemon")

# Requests that were on their way when the signal came are refused with UNAVAILABLE for this long; a server that
# stops at once cuts them off with CANCELLED, which clients take for their own doing and do not retry.
LINGER_SECONDS = 0.25
# How long a busy event loop may keep the interpreter from the thread that predicts, seconds. Python's default, 0.005,
# is longer than most answers take; with this a saturated daemon answered a tenth more.
SWITCH_SECONDS = 0.0005


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Raises:
        BundleError: a bundle cannot be served. LanguageModelError: a language model cannot.
        ModuleNotFoundError: ONNX Runtime, or what traces, is not installed.
        OSError: a port is taken. StoreError: the store cannot be opened.
        SecurityError: a certificate, key or token file cannot be used.
    """
    tracer = opened(config.tracing)
    logs.configure(config.logging, more=() if tracer is None else (tracer.log_fields,))
    engines, languages = wiring.load_engines(config), wiring.load_language_engines(config)
    # What was allocated while loading lives as long as the process; spare the collector the walk over it.
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        asyncio.run(_serve(config, engines, languages, tracer))
    finally:
        if tracer is not None:
            tracer.close()


async def _serve(
    config: Config, engines: dict[str, Engine], languages: dict[str, LanguageEngine], tracer: Tracer | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    guard = setup.guard(config, SystemClock())
    door = setup.door(config, guard)
    _warn(config, guard)
    store = wiring.open_store(config)
    service = wiring.build_service(
        config, engines, store=store, quotas=guard.quotas, tracer=tracer, languages=languages
    )
    supervisor = Supervisor.of(os.environ)
    reload = Reloading(supervisor.around(service.repository.reload, lambda: _status(service.models())))
    loop.add_signal_handler(signal.SIGHUP, reload.ask)
    rpc = build_server(service, config, guard=guard, tracer=tracer)
    figures = registry(service.snapshot, rpc.stats.counts, guard.stats, rpc.stats.streams)
    figures.register(LanguageCollector(service.generating.snapshot))
    site = page(config, Bridge(service, guard, loop), version()) if config.web.enabled else None
    http = start_http(figures, lambda: service.ready, config.server.host, config.server.http_port, door, site)
    pulse = loop.create_task(supervisor.watch(), name="watchdog")
    try:
        service.start()
        await rpc.start()
        announce(config, rpc.port, http.port, sorted({*engines, *languages}))
        supervisor.ready(_status(service.models()))
        await stop.wait()
        reload.end()
        log.info("draining", seconds=config.server.drain_seconds)
        supervisor.stopping(config.server.drain_seconds)
        rpc.drain()
        await service.drain(config.server.drain_seconds)
        await asyncio.sleep(LINGER_SECONDS)
        await rpc.stop()
    finally:
        pulse.cancel()
        # On a thread: answers under way may wait for this loop.
        await asyncio.to_thread(http.close)
    log.info("stopped")


def _status(models: Iterable[Manifest]) -> str:
    """What a service manager shows."""
    return f"serving {', '.join(manifest.name for manifest in models) or 'no model'}"


def _warn(config: Config, guard: Guard) -> None:
    """Say what is open that need not be."""
    if is_loopback(config.server.host):
        return
    if not config.security.tls_certificate:
        log.warning("no TLS: whoever is on the way can read and change requests", host=config.server.host)
    if not guard.closed:
        log.warning("no tokens: whoever reaches the port may do everything", host=config.server.host)


class Reloading:
    """Reloads when asked; asked while it does, once more afterwards."""

    def __init__(self, reload: Callable[[], Awaitable[None]]) -> None:
        self._reload = reload
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def ask(self) -> None:
        """SIGHUP."""
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._task = asyncio.get_running_loop().create_task(self._run(), name="reload")

    def end(self) -> None:
        """Begin nothing any more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            self._again = False
            log.info("reloading")
            await self._reload()
            log.info("reloaded")
            if not self._again:
                return


def announce(config: Config, grpc_port: int, http_port: int, models: list[str]) -> None:
    """Write the ready line: one JSON object, for whoever started the process."""
    ready: dict[str, Any] = {
        "event": "ready",
        "host": config.server.host,
        "grpc_port": grpc_port,
        "http_port": http_port,
        "pid": os.getpid(),
        "models": models,
        "mode": config.scheduler.mode,
    }
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    log.info("ready", **{key: value for key, value in ready.items() if key != "event"})
