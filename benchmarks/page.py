"""What the web page costs a daemon with many sessions: predictions beside it, its answers, memory and processor.

    python -m benchmarks.page [--json] [--sessions N] [--seconds S] [--rounds R] [--pages P]

predict_p50_ratio, predict_p99_ratio    latency of a prediction at batch 1 with P pages open over the same daemon's
                                        with none; idle_*: with the page enabled and nobody looking over a daemon
                                        with `web.enabled = false`. Medians over rounds in which both take turns
cpu_share_idle, cpu_share_pages         processor time of the daemon a second that the page takes: with nobody looking,
                                        and with P pages open
list_p50_ms, list_p99_ms                GET /api/sessions, one page of the worst, while predictions run
scrape_p50_ms                           GET /metrics, likewise
rss_bytes                               resident memory beyond that of the daemon without the page, before any of this

A page that is open reads the stream of events, and with every point of its charts the models and a page of sessions,
as the page in a browser does. Sessions are those of the digits; client and daemons share this machine's cores.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from statistics import median

import httpx
import numpy as np

from acclimate.runtime.client import AsyncClient, Client
from acclimate.runtime.client.local import LocalDaemon, local_daemon
from benchmarks._load_generator import cpu_clock
from benchmarks._report import ROOT, Report, Value, emit, parser
from benchmarks.startup import rss_mb

BUNDLE = ROOT / "examples" / "digits" / "bundle"
MODEL = "digits"
TOGETHER = 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print."""
    options = parser(__doc__)
    options.add_argument("--sessions", type=int, default=10_000, help="sessions of each daemon (default 10000)")
    options.add_argument("--seconds", type=float, default=4.0, help="length of a measurement (default 4)")
    options.add_argument("--rounds", type=int, default=5, help="measurements of each kind (default 5)")
    options.add_argument("--pages", type=int, default=3, help="pages that are open (default 3)")
    chosen = options.parse_args(arguments)
    with ExitStack() as stack:
        without = stack.enter_context(_daemon(page=False))
        with_page = stack.enter_context(_daemon(page=True))
        for daemon in (without, with_page):
            asyncio.run(_fill(daemon, chosen.sessions))
        _points(with_page, 5)
        resident = 1e6 * (rss_mb(with_page.pid) - rss_mb(without.pid))
        rows: list[dict[str, Value]] = []
        for number in range(chosen.rounds):
            rows.append(_measured(without, chosen.seconds) | {"what": "without the page", "round": number})
            rows.append(_measured(with_page, chosen.seconds) | {"what": "nobody looks", "round": number})
            with _open_pages(with_page, chosen.pages):
                rows.append(_measured(with_page, chosen.seconds) | {"what": "pages open", "round": number})
        figures = _figures(rows) | _answers(with_page, chosen.seconds) | {"rss_bytes": resident}
    emit(Report("page", figures, rows), as_json=chosen.json)


@contextmanager
def _daemon(*, page: bool) -> Iterator[LocalDaemon]:
    os.environ["ACCLIMATE_WEB__ENABLED"] = str(page).lower()
    os.environ["ACCLIMATE_LOGGING__LEVEL"] = "warning"
    with local_daemon([BUNDLE]) as daemon:
        yield daemon


async def _fill(daemon: LocalDaemon, sessions: int) -> None:
    async with AsyncClient(daemon.target) as client:
        for start in range(0, sessions, TOGETHER):
            names = [f"camera-{number:05d}" for number in range(start, min(sessions, start + TOGETHER))]
            await asyncio.gather(*(client.create_session(MODEL, name, recipe="tent") for name in names))


def _measured(daemon: LocalDaemon, seconds: float) -> dict[str, Value]:
    """Predictions one after the other, spread over sessions; every figure in milliseconds, processor time a share."""
    picture = np.zeros((1, 1, 28, 28), np.uint8)
    latencies: list[float] = []
    with Client(daemon.target) as client:
        client.predict(MODEL, picture)
        clock = cpu_clock(daemon.pid)
        spent, began = clock(), time.monotonic()
        while time.monotonic() - began < seconds:
            sent = time.perf_counter()
            client.predict(MODEL, picture, parameters={"sequence_id": f"camera-{len(latencies) % 100:05d}"})
            latencies.append(1e3 * (time.perf_counter() - sent))
            # Leaves the daemon time of its own, as a camera's frames do.
            time.sleep(0.005)
        cpu = (clock() - spent) / (time.monotonic() - began)
    p50, p99 = np.percentile(latencies, [50, 99])
    return {"p50_ms": float(p50), "p99_ms": float(p99), "cpu_share": cpu, "requests": len(latencies)}


def _figures(rows: Sequence[dict[str, Value]]) -> dict[str, float]:
    def of(what: str, name: str) -> float:
        return median(float(row[name]) for row in rows if row["what"] == what)

    return {
        "predict_p50_ratio": of("pages open", "p50_ms") / of("nobody looks", "p50_ms"),
        "predict_p99_ratio": of("pages open", "p99_ms") / of("nobody looks", "p99_ms"),
        "idle_p50_ratio": of("nobody looks", "p50_ms") / of("without the page", "p50_ms"),
        "idle_p99_ratio": of("nobody looks", "p99_ms") / of("without the page", "p99_ms"),
        "cpu_share_idle": of("nobody looks", "cpu_share") - of("without the page", "cpu_share"),
        "cpu_share_pages": of("pages open", "cpu_share") - of("without the page", "cpu_share"),
    }


def _answers(daemon: LocalDaemon, seconds: float) -> dict[str, float]:
    """How long the port takes to answer while predictions run."""
    done = threading.Thread(target=_measured, args=(daemon, 2 * seconds))
    done.start()
    times: dict[str, list[float]] = {"/api/sessions": [], "/metrics": []}
    with _browser(daemon) as browser:
        while done.is_alive():
            for path, found in times.items():
                sent = time.perf_counter()
                browser.get(path).raise_for_status()
                found.append(1e3 * (time.perf_counter() - sent))
                time.sleep(0.05)
    done.join()
    return {
        "list_p50_ms": float(np.percentile(times["/api/sessions"], 50)),
        "list_p99_ms": float(np.percentile(times["/api/sessions"], 99)),
        "scrape_p50_ms": float(np.percentile(times["/metrics"], 50)),
    }


@contextmanager
def _open_pages(daemon: LocalDaemon, count: int) -> Iterator[None]:
    ended = threading.Event()
    threads = [threading.Thread(target=_page, args=(daemon, ended), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _points(daemon: LocalDaemon, count: int) -> None:
    """Wait for so many new points of the charts."""
    with _browser(daemon) as browser, browser.stream("GET", "/api/events") as stream:
        for line in stream.iter_lines():
            count -= line == "event: sample"
            if count < 0:
                return


def _page(daemon: LocalDaemon, ended: threading.Event) -> None:
    """What the page does: each point of the charts lets it ask for the models' newest points and its list."""
    newest = 0.0
    with _browser(daemon) as browser, suppress(httpx.ReadError), browser.stream("GET", "/api/events") as stream:
        for line in stream.iter_lines():
            if ended.is_set():
                return
            if line == "event: sample":
                points = browser.get(f"/api/models/{MODEL}/history", params={"after": newest}).json()
                newest = points["at"][-1] if points["at"] else newest
                browser.get("/api/sessions").raise_for_status()


def _browser(daemon: LocalDaemon) -> httpx.Client:
    url = f"http://127.0.0.1:{daemon.http_port}"
    return httpx.Client(base_url=url, verify=False, trust_env=False, timeout=60)  # noqa: S501 - plain HTTP on loopback


if __name__ == "__main__":
    main()
