"""The HTTP port: `/metrics`, `/healthz`, `/readyz` and an index; a thread per connection, read-only.

With TLS it speaks HTTPS. Health needs no credential; metrics may.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from acclimate.runtime.security.door import Door

log = structlog.stdlib.get_logger("acclimate.http")

# A client that sends nothing for this long loses its connection and frees the thread.
IDLE_SECONDS = 10.0
TEXT = "text/plain; charset=utf-8"
INDEX = """<!doctype html>
<title>Acclimate</title>
<h1>Acclimate</h1>
<ul>
<li><a href="metrics">metrics</a>, for Prometheus</li>
<li><a href="healthz">healthz</a>, 200 while the process answers</li>
<li><a href="readyz">readyz</a>, 200 while new work is accepted, else 503</li>
</ul>
"""


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A listening server; `close` stops it and frees the port."""

    server: ThreadingHTTPServer
    thread: threading.Thread

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server.server_address[1])

    def close(self) -> None:
        """Stop accepting, end the thread, free the port; calling it twice is harmless."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def start_http(
    registry: CollectorRegistry, ready: Callable[[], bool], host: str, port: int, door: Door | None = None
) -> HttpServer:
    """Listen and serve from a thread of its own.

    Args:
        registry: what `/metrics` shows.
        ready: whether `/readyz` says 200; called from other threads.
        host: address to bind.
        port: port to bind, 0 for a free one.
        door: who may read metrics, and over what; by default everyone, over plain HTTP.

    Raises:
        OSError: EADDRINUSE, the port is taken (or the address cannot be bound).
    """
    kind, door = _Server6 if ":" in host else _Server, door or Door()
    try:
        server = kind((host, port), partial(_Handler, registry, ready, door.may_scrape))
    except OSError as error:
        raise OSError(
            error.errno or errno.EADDRINUSE,
            f"cannot listen for HTTP on {host}:{port} ({error.strerror}); stop what uses the port, or choose "
            "another with --http-port (0 picks a free one)",
        ) from error
    server.tls = door.tls
    thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()
    return HttpServer(server, thread)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # SO_REUSEADDR on Linux only skips TIME_WAIT: a second listener still fails, which is what we want.
    allow_reuse_address = True
    tls: Callable[[], ssl.SSLContext] | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls is None:
            return connection, address
        # The handshake comes with the first read, in the connection's own thread and under its time limit.
        return self.tls().wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def server_bind(self) -> None:
        # HTTPServer looks its own name up in DNS here, which can hang for seconds on a device without any.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("http connection failed", client=str(client_address), exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    timeout = IDLE_SECONDS
    # Headers and body are two writes: with Nagle's algorithm the second waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"
    server_version = "acclimate"
    sys_version = ""

    def __init__(
        self,
        registry: CollectorRegistry,
        ready: Callable[[], bool],
        may_scrape: Callable[[str | None], bool],
        *connection: object,
    ) -> None:
        self._registry = registry
        self._ready = ready
        self._may_scrape = may_scrape
        super().__init__(*connection)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        try:
            status, kind, body = self._answer(self.path.partition("?")[0])
        except Exception:
            log.exception("http request failed", path=self.path)
            status, kind, body = HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, b"internal error; see the log\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        log.debug("http", request=format % args)

    def _answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            if not self._may_scrape(self.headers.get("Authorization")):
                return HTTPStatus.UNAUTHORIZED, TEXT, b"send 'Authorization: Bearer TOKEN' of an operator\n"
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            return HTTPStatus.OK, kind, encode(self._registry)
        if path == "/healthz":
            return HTTPStatus.OK, TEXT, b"ok\n"
        if path == "/readyz":
            if self._ready():
                return HTTPStatus.OK, TEXT, b"ready\n"
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"not ready\n"
        if path == "/":
            return HTTPStatus.OK, "text/html; charset=utf-8", INDEX.encode()
        return HTTPStatus.NOT_FOUND, TEXT, b"not found; try /metrics, /healthz or /readyz\n"
