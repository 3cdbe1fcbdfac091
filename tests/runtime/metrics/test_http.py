"""The HTTP port over a real socket."""

from __future__ import annotations

import errno
import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.registry import Collector, CollectorRegistry

from acclimate.runtime.metrics.collector import registry
from acclimate.runtime.metrics.http import HttpServer, start_http
from acclimate.runtime.web.server import _bound
from tests.runtime.rpc.loopback import Loopback

ACCEPT_OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


@pytest.fixture
def server(loopback: Loopback) -> Iterator[HttpServer]:
    with listening(registry(loopback.service.snapshot), loopback) as running:
        yield running


@contextmanager
def listening(metrics: CollectorRegistry, loopback: Loopback, port: int = 0) -> Iterator[HttpServer]:
    running = start_http(metrics, lambda: loopback.service.ready, "127.0.0.1", port)
    try:
        yield running
    finally:
        running.close()


def fetch(
    server: HttpServer, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()
    finally:
        connection.close()


def test_metrics_in_both_formats(server: HttpServer) -> None:
    status, kind, body = fetch(server, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert "\nacclimate_ready 1.0\n" in body
    status, kind, body = fetch(server, "/metrics?x=1", headers=ACCEPT_OPENMETRICS)
    assert (status, kind.partition(";")[0]) == (200, "application/openmetrics-text")
    assert body.endswith("# EOF\n")


def test_health_index_and_everything_else(server: HttpServer) -> None:
    assert fetch(server, "/healthz")[::2] == (200, "ok\n")
    assert fetch(server, "/readyz")[::2] == (200, "ready\n")
    assert "metrics" in fetch(server, "/")[2]
    assert fetch(server, "/metrics", "HEAD")[::2] == (200, "")
    assert fetch(server, "/../../etc/passwd")[0] == 404
    assert fetch(server, "/metrics", "POST")[0] == 501


def test_not_ready_is_503(loopback: Loopback) -> None:
    running = start_http(registry(loopback.service.snapshot), lambda: False, "127.0.0.1", 0)
    try:
        assert fetch(running, "/readyz")[::2] == (503, "not ready\n")
        assert fetch(running, "/healthz")[0] == 200
    finally:
        running.close()


class Failing(Collector):
    """A collector with a defect."""

    def collect(self) -> Iterator[None]:  # type: ignore[override]
        raise ValueError("secret")
        yield


def test_a_defect_is_500_without_details_and_the_next_request_is_served(loopback: Loopback) -> None:
    broken = CollectorRegistry(auto_describe=False)
    broken.register(Failing())
    with listening(broken, loopback) as running:
        status, _, body = fetch(running, "/metrics")
        assert status == 500
        assert "secret" not in body
        assert fetch(running, "/healthz")[0] == 200


def test_a_taken_port_is_named(server: HttpServer, loopback: Loopback) -> None:
    with (
        pytest.raises(OSError, match=f"127.0.0.1:{server.port}.*--http-port") as caught,
        listening(registry(loopback.service.snapshot), loopback, server.port),
    ):
        pass
    assert caught.value.errno == errno.EADDRINUSE


def test_closing_frees_the_port_and_may_be_repeated(loopback: Loopback) -> None:
    with listening(registry(loopback.service.snapshot), loopback) as first:
        port = first.port
        first.close()
        with listening(registry(loopback.service.snapshot), loopback, port) as second:
            assert fetch(second, "/healthz")[0] == 200


def test_no_answer_waits_for_the_acknowledgement_of_its_first_half() -> None:
    bound = _bound("127.0.0.1", 0)
    with bound, socket.create_connection(bound.getsockname()), bound.accept()[0] as connection:
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
