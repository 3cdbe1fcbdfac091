"""The port keeps to itself: a scrape that hangs, slow clients and bad requests delay nobody."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client.registry import Collector, CollectorRegistry

from acclimate.runtime.client import Client
from acclimate.runtime.metrics.http import start_http
from acclimate.runtime.web import server
from tests.polling import until
from tests.runtime.rpc.loopback import MODEL, Loopback, samples, serving


class Hanging(Collector):
    """A collector that waits to be let go."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def collect(self) -> Iterator[None]:  # type: ignore[override]
        self.asked.set()
        self.go.wait(60)
        yield from ()


@pytest.fixture(scope="module")
def loopback() -> Iterator[Loopback]:
    with serving() as running:
        yield running


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_scrape_that_hangs_delays_neither_predictions_nor_health(loopback: Loopback) -> None:
    slow, figures = Hanging(), CollectorRegistry(auto_describe=False)
    figures.register(slow)
    slow.asked.clear()
    http_server = start_http(figures, lambda: True, "127.0.0.1", 0)
    scraped: list[int] = []
    scrape = threading.Thread(target=lambda: scraped.append(get(http_server.port, "/metrics")))
    try:
        scrape.start()
        assert slow.asked.wait(30)
        with Client(loopback.target) as client:
            assert client.predict(MODEL, samples(2)).logits.shape[0] == 2
        assert get(http_server.port, "/healthz") == 200
        assert scraped == []
        slow.go.set()
        scrape.join(30)
        assert scraped == [200]
    finally:
        slow.go.set()
        http_server.close()


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_who_sends_nothing_more_loses_the_connection(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    http_server = start_http(CollectorRegistry(), lambda: True, "127.0.0.1", 0)
    try:
        with socket.create_connection(("127.0.0.1", http_server.port), timeout=30) as connection:
            connection.sendall(sent)
            received = b""
            while part := connection.recv(65536):
                received += part
            assert (b"200 OK" in received) == sent.endswith(b"\r\n\r\n")
    finally:
        http_server.close()


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x00\xff", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"x" * 200_000])
def test_what_is_no_http_is_refused_and_the_next_request_served(sent: bytes) -> None:
    http_server = start_http(CollectorRegistry(), lambda: True, "127.0.0.1", 0)
    try:
        with socket.create_connection(("127.0.0.1", http_server.port), timeout=30) as connection:
            connection.sendall(sent + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            assert b"200 OK" not in connection.recv(65536)
        until(lambda: get(http_server.port, "/healthz") == 200, "the next request to be served")
    finally:
        http_server.close()
