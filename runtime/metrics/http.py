"""The HTTP port: `/metrics`, `/healthz`, `/readyz`, an index, and the web page where there is one.

With TLS it speaks HTTPS. Health needs no credential; metrics may.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus

import structlog
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from acclimate.runtime.security.door import Door
from acclimate.runtime.web.page import PageSite
from acclimate.runtime.web.refusals import unknown
from acclimate.runtime.web.server import HttpServer, listen

__all__ = ["HttpServer", "start_http"]

log = structlog.stdlib.get_logger("acclimate.http")

INDEX = """<!doctype html>
<title>Acclimate</title>
<h1>Acclimate</h1>
<ul>
<li><a href="metrics">metrics</a>, for Prometheus</li>
<li><a href="healthz">healthz</a>, 200 while the process answers</li>
<li><a href="readyz">readyz</a>, 200 while new work is accepted, else 503</li>
</ul>
"""


def start_http(
    registry: CollectorRegistry,
    ready: Callable[[], bool],
    host: str,
    port: int,
    door: Door | None = None,
    page: Callable[[threading.Event], PageSite] | None = None,
) -> HttpServer:
    """Listen and serve from a thread of its own.

    Args:
        registry: what `/metrics` shows.
        ready: whether `/readyz` says 200; called from other threads.
        host: address to bind.
        port: port to bind, 0 for a free one.
        door: who may read metrics, and over what; by default everyone, over plain HTTP.
        page: makes the web page, given what is set when the port closes; without it there is an index.

    Raises:
        OSError: EADDRINUSE, the port is taken (or the address cannot be bound).
    """
    door, ending = door or Door(), threading.Event()
    site = None if page is None else page(ending)
    app = Starlette(
        routes=[*_plain(registry, ready, door), *(_index() if site is None else site.routes)],
        exception_handlers={HTTPException: _refused},
        lifespan=None if site is None else site.lifespan,
    )
    return listen(_Caught(app), host, port, door.tls, ending)


def _plain(registry: CollectorRegistry, ready: Callable[[], bool], door: Door) -> list[Route]:
    # Not coroutines: they run on threads of their own, so that a scrape keeps nobody waiting.
    def metrics(request: Request) -> Response:
        if not door.may_scrape(request.headers.get("Authorization")):
            return PlainTextResponse(
                "send 'Authorization: Bearer TOKEN' of an operator\n",
                HTTPStatus.UNAUTHORIZED,
                {"WWW-Authenticate": "Bearer"},
            )
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), headers={"Content-Type": kind})

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready\n", HTTPStatus.SERVICE_UNAVAILABLE)

    return [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]


def _index() -> list[Route]:
    async def index(_: Request) -> Response:
        return Response(INDEX, media_type="text/html")

    return [Route("/", index)]


async def _refused(request: Request, error: Exception) -> Response:
    """What is not there, and methods that nothing here answers."""
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    if request.url.path.startswith("/api/"):
        return unknown(status, "NOT_FOUND" if status == HTTPStatus.NOT_FOUND else "METHOD_NOT_ALLOWED")
    if status == HTTPStatus.NOT_FOUND:
        return PlainTextResponse("not found; try /metrics, /healthz or /readyz\n", status)
    return PlainTextResponse("only GET and HEAD are answered here\n", HTTPStatus.NOT_IMPLEMENTED)


class _Caught:
    """The application, whose defects are logged, and answered without details."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def told(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            if scope["type"] == "http" and message["type"] == "http.response.start":
                log.debug("http", method=scope["method"], path=scope["path"], status=message["status"])
            await send(message)

        try:
            await self._app(scope, receive, told)
        except Exception:
            if scope["type"] != "http":
                raise
            log.exception("http request failed", path=scope["path"])
            if not begun:
                failed = PlainTextResponse("internal error; see the log\n", HTTPStatus.INTERNAL_SERVER_ERROR)
                await failed(scope, receive, send)
