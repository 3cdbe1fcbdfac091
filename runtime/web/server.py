"""An ASGI application on a port of its own, served by uvicorn from a thread with a loop of its own.

Nothing here runs on the loop that answers predictions.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

# A client that has sent no whole request for this long loses its connection.
IDLE_SECONDS = 10
# How long answers under way get when the port is closed.
GRACE_SECONDS = 1
BACKLOG = 128
MAX_HEADER_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A listening server; `close` stops it and frees the port."""

    server: uvicorn.Server
    thread: threading.Thread
    port: int
    ending: threading.Event

    def close(self) -> None:
        """Stop accepting, end streams, end the thread, free the port; calling it twice is harmless."""
        self.ending.set()
        self.server.should_exit = True
        self.thread.join()


class Impatient(H11Protocol):
    """HTTP/1.1 that gives up connections which bring no whole request in time, the first one included."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait no more once a request is there."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop()
        self._waiting = self.loop.call_later(IDLE_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def listen(
    app: ASGIApp,
    host: str,
    port: int,
    tls: Callable[[], ssl.SSLContext] | None = None,
    ending: threading.Event | None = None,
) -> HttpServer:
    """Serve an application until it is closed.

    Args:
        app: what answers.
        host: address to bind.
        port: port to bind, 0 for a free one.
        tls: the context of each new connection, or None for plain HTTP.
        ending: set when the server closes, for answers without an end.

    Raises:
        OSError: EADDRINUSE, the port is taken (or the address cannot be bound).
    """
    bound = _bound(host, port)
    config = uvicorn.Config(
        app,
        http=Impatient,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    config.load()
    config.ssl = None if tls is None else _latest(tls)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([bound])), name="http", daemon=True)
    thread.start()
    return HttpServer(server, thread, int(bound.getsockname()[1]), ending or threading.Event())


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # SO_REUSEADDR on Linux only skips TIME_WAIT: a second listener still fails, which is what we want.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Headers and body are two writes: with Nagle's algorithm the second waits 40 ms for a client's acknowledgement.
        # Connections inherit this; asyncio sets it only on sockets whose protocol was named.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise OSError(
            error.errno or errno.EADDRINUSE,
            f"cannot listen for HTTP on {host}:{port} ({error.strerror}); stop what uses the port, or choose "
            "another with --http-port (0 picks a free one)",
        ) from error
    return bound


def _latest(tls: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """A context that hands each connection to the newest one, whatever name it asks for."""

    def chosen(connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = tls()

    first = tls()
    first.sni_callback = chosen
    return first
