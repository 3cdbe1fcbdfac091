"""What a scrape of `/metrics` takes with many sessions, and how many series it has.

    python -m benchmarks.scrape [--json] [--sessions N] [--rounds N] [--bundle DIR]

scrape_ms_10k               p50 over rounds with 10,000 open sessions, a tenth of which answered since the last scrape
                            (goal 50 at most); scrape_p99_ms_10k the same, p99
scrape_all_changed_ms_10k   p50 over scrapes each of which comes after every session has answered
scrape_ms_empty             p50 before any session is opened
series_10k, series_empty    samples in the exposition with 10,000 sessions and with none; scrape_bytes_10k its size

A scrape is timed over loopback from the request to the last byte, in the form that Prometheus asks for (OpenMetrics),
with the client on the same cores as the daemon. Sessions run `tent` and their steps go on meanwhile, as they would;
forty of them see noise, so that every ranking of the worst is full.
"""

from __future__ import annotations

import argparse
import http.client
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from acclimate.v1 import session_service_pb2 as pb
from benchmarks._load_generator import INFER, connected, saturated
from benchmarks._load_subject import Subject
from benchmarks._report import ROOT, Report, Value, emit, parser

ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
CREATE = "/acclimate.v1.SessionService/CreateSession"
IN_FLIGHT = 64
SHARE = 10
NOISY, NOISY_ROWS = 40, 64


class Scraper:
    """A connection that is kept, as Prometheus keeps its own."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.seconds: list[float] = []
        self.text = b""

    def scrape(self, times: int = 1) -> None:
        """Read `/metrics`, and note how long it took."""
        for _ in range(times):
            began = time.perf_counter()
            self._connection.request("GET", "/metrics", headers={"Accept": ACCEPT})
            reply = self._connection.getresponse()
            self.text = reply.read()
            self.seconds.append(time.perf_counter() - began)
            if reply.status != http.client.OK:
                raise RuntimeError(f"the scrape was answered with {reply.status}")

    def row(self, phase: str) -> dict[str, Value]:
        """What was measured since the last one."""
        taken, self.seconds = 1e3 * np.array(self.seconds), []
        return {
            "phase": phase, "scrapes": len(taken), "p50_ms": float(np.percentile(taken, 50)),
            "p99_ms": float(np.percentile(taken, 99)), "series": self.series, "bytes": len(self.text),
        }  # fmt: skip

    @property
    def series(self) -> int:
        """Samples in the latest exposition."""
        return sum(not line.startswith(b"#") for line in self.text.splitlines())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print."""
    chosen = _parse(arguments)
    bundle = read_bundle(chosen.bundle)
    engine = OnnxEngine(bundle, OnnxOptions(intra_op_threads=1))
    with tempfile.TemporaryDirectory() as folder:
        clean = bundle.source.canary_inputs
        noise = np.random.default_rng(0).integers(0, 256, (NOISY_ROWS, *clean.shape[1:])).astype(clean.dtype)
        subject = Subject(bundle, engine, np.concatenate([clean, noise]), 1.0, Path(folder))
        rows = _measured(subject, chosen.sessions, chosen.rounds)
    empty, some, every = rows
    figures = {
        "scrape_ms_10k": float(some["p50_ms"]),
        "scrape_p99_ms_10k": float(some["p99_ms"]),
        "scrape_all_changed_ms_10k": float(every["p50_ms"]),
        "scrape_ms_empty": float(empty["p50_ms"]),
        "series_10k": float(some["series"]),
        "series_empty": float(empty["series"]),
        "scrape_bytes_10k": float(some["bytes"]),
    }
    emit(Report("scrape", figures, rows), as_json=chosen.json)


def _measured(subject: Subject, count: int, rounds: int) -> list[Mapping[str, Value]]:
    names = [f"cam-{number:05}" for number in range(count)]
    opening = [
        pb.CreateSessionRequest(parent=f"models/{subject.model}", session_id=name, recipe="tent").SerializeToString()
        for name in names
    ]
    noisy = [subject.infer(NOISY_ROWS, name, start=-NOISY_ROWS) for name in names[:NOISY]]
    asking = [subject.infer(1, name, start=number) for number, name in enumerate(names)]
    with subject.serving(sessions={"max_sessions": count}) as daemon:
        scraper = Scraper(daemon.http_port)
        scraper.scrape(20)
        rows: list[Mapping[str, Value]] = [scraper.row("no sessions")]
        with connected(daemon.target, CREATE) as create, connected(daemon.target, INFER) as infer:
            opened = saturated(create, opening, IN_FLIGHT)
            if opened.codes["OK"] != count:
                raise RuntimeError(f"not every session was opened: {dict(opened.codes)}")
            saturated(infer, noisy, IN_FLIGHT)
            scraper.scrape()
            scraper.seconds = []
            for turn in range(rounds):
                saturated(infer, asking[turn % SHARE :: SHARE], IN_FLIGHT)
                scraper.scrape()
            rows.append(scraper.row(f"{count} sessions, a tenth changed"))
            for _ in range(max(1, rounds // SHARE)):
                saturated(infer, asking, IN_FLIGHT)
                scraper.scrape()
            rows.append(scraper.row(f"{count} sessions, all changed"))
    return rows


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--bundle", type=Path, default=ROOT / "examples" / "digits" / "bundle")
    options.add_argument("--sessions", type=int, default=10_000, help="open sessions of the figures that say 10k")
    options.add_argument("--rounds", type=int, default=30, help="scrapes with a tenth changed (default 30)")
    chosen = options.parse_args(arguments)
    if chosen.sessions < SHARE or chosen.rounds < 1:
        options.error(f"--sessions must be at least {SHARE}, --rounds at least 1")
    return chosen


if __name__ == "__main__":
    main()
