"""The web page: static files, the API they use, and what keeps other sites away from both."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from acclimate.runtime.config import Config
from acclimate.runtime.config_security import is_loopback
from acclimate.runtime.web.api import Api
from acclimate.runtime.web.bridge import Bridge
from acclimate.runtime.web.history import MAX_SHARE, History
from acclimate.runtime.web.origin import Origin

log = structlog.stdlib.get_logger("acclimate.web")

STATIC = Path(__file__).parent / "static"
# Nothing from elsewhere, nothing inline, no frame around it, no form that goes anywhere.
POLICY = (
    "default-src 'self'; base-uri 'none'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
    "img-src 'self'; object-src 'none'; script-src 'self'; style-src 'self'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


@dataclass(frozen=True, slots=True)
class PageSite:
    """Routes of the page, and what runs as long as they are served."""

    routes: Sequence[BaseRoute]
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]]


def page(config: Config, bridge: Bridge, version: str) -> Callable[[threading.Event], PageSite]:
    """What makes the page once it is known what tells it that the port closes; call it on the service's loop.

    Args:
        config: `web`, and where the port is bound.
        bridge: the service behind it.
        version: of the daemon.
    """
    history = History(config.web, bridge.service.sight, bridge.service.snapshot)
    origin = Origin(names=None if bridge.guard.closed or not is_loopback(config.server.host) else is_loopback)

    def site(ending: threading.Event) -> PageSite:
        api = Api(bridge, history, config, version, ending)
        around = [Middleware(_Headers), Middleware(origin.middleware)]
        routes = [
            Mount("/api", routes=api.routes(), middleware=around),
            Mount("/static", StaticFiles(directory=STATIC), middleware=[Middleware(_Headers)]),
            Route("/", _index, middleware=[Middleware(_Headers)]),
        ]
        return PageSite(routes, lambda _: _sampling(history, config.web.sample_seconds, api.sampled))

    return site


async def _index(_: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


@asynccontextmanager
async def _sampling(history: History, seconds: float, sampled: Callable[[], None]) -> AsyncIterator[None]:
    task = asyncio.get_running_loop().create_task(_sample(history, seconds, sampled), name="sampling")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _sample(history: History, seconds: float, sampled: Callable[[], None]) -> None:
    """Take points for ever, on a thread: with many sessions one takes a while."""
    while True:
        taken = 0.0
        try:
            taken = await asyncio.to_thread(history.sample)
        except Exception:
            log.exception("no points could be taken for the page's charts")
        sampled()
        await asyncio.sleep(max(seconds, taken / MAX_SHARE))


class _Headers:
    """Adds `HEADERS` to every response, and lets static files be asked for anew each time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {key.lower() for key, _ in message["headers"]}
                more = HEADERS | {b"cache-control": b"no-cache"}
                message["headers"] = [
                    *message["headers"],
                    *((key, value) for key, value in more.items() if key not in present),
                ]
            await send(message)

        await self._app(scope, receive, told)
