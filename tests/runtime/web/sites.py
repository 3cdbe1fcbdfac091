"""The page and its API over a real socket, in front of the real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from acclimate.runtime.client import Client
from acclimate.runtime.clock import SystemClock
from acclimate.runtime.config import Config
from acclimate.runtime.metrics.collector import registry
from acclimate.runtime.metrics.http import HttpServer, start_http
from acclimate.runtime.security import setup
from acclimate.runtime.web.bridge import Bridge
from acclimate.runtime.web.page import page
from tests.end_to_end.tenants import issued
from tests.runtime.rpc.loopback import MODEL, Loopback, samples, serving

PATIENCE_SECONDS = 30.0
# So often that no test waits for a point.
QUICK = {"sample_seconds": 0.1}
# One for all tests: making one reads every certificate of the system.
BROWSER = httpx.Client(timeout=PATIENCE_SECONDS, verify=False, trust_env=False)  # noqa: S501 - plain HTTP on loopback


@dataclass(frozen=True)
class Site:
    """Where the page is, what is behind it, and the tokens of its callers, if it wants any."""

    loopback: Loopback
    http: HttpServer
    tokens: dict[str, str]

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.http.port}"

    def ask(
        self, path: str, caller: str | None = None, tenant: str | None = None, method: str = "GET", **headers: str
    ) -> httpx.Response:
        """One request."""
        shown = self.headers(caller, tenant) | {name.replace("_", "-"): value for name, value in headers.items()}
        return BROWSER.request(method, f"{self.url}{path}", headers=shown)

    def get(self, path: str, caller: str | None = None, tenant: str | None = None) -> Any:
        """A document."""
        response = self.ask(f"/api/{path}", caller, tenant)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, path: str, caller: str | None = None, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Status and reason of a refusal."""
        response = self.ask(f"/api/{path}", caller, None, method, **headers)
        return response.status_code, response.json()["error"]["reason"]

    def headers(self, caller: str | None, tenant: str | None = None) -> dict[str, str]:
        """What a caller sends with every request."""
        shown = {} if caller is None else {"Authorization": f"Bearer {self.tokens[caller]}"}
        return shown | ({} if tenant is None else {"Acclimate-Tenant": tenant})

    def client(self, caller: str | None = None) -> Client:
        """A gRPC client of the same daemon."""
        return Client(self.loopback.target, token=None if caller is None else self.tokens[caller])

    def opened(self, session_id: str, caller: str | None = None, requests: int = 1, **options: Any) -> None:
        """Open a session and let it answer."""
        with self.client(caller) as client:
            client.create_session(MODEL, session_id, **options)
            for number in range(requests):
                client.predict(MODEL, samples(2, number), parameters={"sequence_id": session_id})


@contextmanager
def site(settings: Config | None = None, tokens: dict[str, str] | None = None) -> Iterator[Site]:
    """A daemon in this process, with its page."""
    settings = settings or configured()
    with serving(settings) as loopback:
        guard = setup.guard(settings, SystemClock())

        async def made() -> Any:
            return page(settings, Bridge(loopback.service, guard, loopback.loop), "1.2.3")

        service, door = loopback.service, setup.door(settings, guard)
        figures = registry(service.snapshot)
        http = start_http(figures, lambda: service.ready, "127.0.0.1", 0, door, loopback.run(made()))
        try:
            yield Site(loopback, http, tokens or {})
        finally:
            http.close()


def configured(**sections: Any) -> Config:
    """Free ports, and points of the charts as often as may be."""
    free = {"grpc_port": 0, "http_port": 0}
    return Config(server=free, web=QUICK | sections.pop("web", {}), **sections)


@contextmanager
def guarded(folder: Path, **sections: Any) -> Iterator[Site]:
    """The same, for those who show a token: alice, mallory, the operator `watcher` and the administrator `root`."""
    file = folder / "tokens.json"
    tokens = issued(file)
    with site(configured(security={"tokens": str(file)}, **sections), tokens) as running:
        yield running


@contextmanager
def streamed(running: Site, path: str = "events", caller: str | None = None) -> Iterator[Iterator[tuple[str, Any]]]:
    """Messages of a stream, by name and document."""
    with BROWSER.stream("GET", f"{running.url}/api/{path}", headers=running.headers(caller)) as response:
        assert response.status_code == 200
        yield _messages(response)


def _messages(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
