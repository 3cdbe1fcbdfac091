"""The load tool against a real daemon: it measures every figure it promises, and its generator keeps to its times."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks._load_generator import Load, open_loop, row, saturated
from benchmarks.load import main

FIGURES = {
    "predict_overhead_p50_ms",
    "throughput_ratio",
    "throughput_ratio_http2",
    "daemon_cpu_us",
    "bare_p50_ms",
    "bare_cpu_us",
    "bare_registered_p50_ms",
    "bare_registered_cpu_us",
    "bare_overhead_p50_ms",
    "predict_overhead_p50_ms_http2",
    "p99_ratio_adapting",
    "bytes_per_session_10k",
    "sessions_created_per_s",
    "sessions_created_per_s_stream",
    "lookup_10_us",
    "lookup_10k_us",
    "throughput_ratio_stream",
    "bytes_per_session_adapted",
    "fairness_p99_ratio",
    "fairness_refused",
    "texts_p50_ratio",
    "texts_refused",
    "texts_overload_p99_ratio",
    "overload_p99_ratio",
    "overload_goodput_ratio",
    "overload_refused",
    "overload_failed",
    "overload_recovery_seconds",
    "overload_rss_growth_mb",
}


class Answered:
    """A call that ended before it was asked about."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        """How it ended."""
        return self._code

    def add_done_callback(self, done: Callable[[Any], None]) -> None:
        """At once."""
        done(self)


class Stalling:
    """A rpc whose replies all come when the test says so."""

    def __init__(self, expected: int) -> None:
        self._waiting: list[Callable[[Any], None]] = []
        self._expected = expected
        self.sent = threading.Event()

    def future(self, _payload: bytes, timeout: float) -> Stalling:
        """Begin a call."""
        assert timeout > 0
        return self

    def add_done_callback(self, done: Callable[[Any], None]) -> None:
        """Remember whom to tell."""
        self._waiting.append(done)
        if len(self._waiting) >= self._expected:
            self.sent.set()

    def release(self) -> int:
        """Answer everyone; how many there were."""
        for done in self._waiting:
            done(Answered(grpc.StatusCode.OK))
        return len(self._waiting)


class Alternating:
    """A rpc that refuses every second call."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def future(self, payload: bytes, timeout: float) -> Answered:
        """Begin a call."""
        assert timeout > 0
        self.payloads.append(payload)
        refused = len(self.payloads) % 2 == 0
        return Answered(grpc.StatusCode.RESOURCE_EXHAUSTED if refused else grpc.StatusCode.OK)


def test_arrivals_do_not_wait_for_replies_and_latency_counts_from_their_times() -> None:
    rpc, loads = Stalling(expected=20), []
    thread = threading.Thread(target=lambda: loads.append(open_loop(rpc, [b""], rate=1000.0, seconds=0.1)))
    begun = time.perf_counter()
    thread.start()
    assert rpc.sent.wait(60), "calls wait for replies that have not come"
    thread.join(0.2)
    count = rpc.release()
    stalled = time.perf_counter() - begun
    thread.join(60)
    load = loads[0]
    assert load.codes["OK"] == count == len(load.accepted)
    # The first was due about when the phase began, and is charged for the whole stall.
    assert max(load.accepted) > stalled / 2


def test_refused_calls_are_counted_and_have_no_latency() -> None:
    rpc = Alternating()
    load = saturated(rpc, [b"a", b"b", b"c", b"d", b"e"], in_flight=2)
    assert rpc.payloads == [b"a", b"b", b"c", b"d", b"e"]
    assert (load.codes["OK"], load.refused, load.failed) == (3, 2, 0)
    assert len(load.accepted) == 3
    shown = row("a phase", load.plus(load))
    assert (shown["answered"], shown["refused"]) == (6, 4)


def test_a_phase_without_answers_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no call was answered"):
        row("a phase", Load(seconds=1.0))


def test_phases_that_do_not_exist_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--phases", "rest"])
    assert "invalid choice: 'rest'" in capsys.readouterr().err


@pytest.mark.slow
def test_every_figure_is_measured_on_a_real_daemon(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seconds", "0.4", "--sessions", "2", "--many", "50", "--overload-seconds", "0.5"]
    main(["--json", "--bundle", str(bundle_path), *arguments])
    document = json.loads(capsys.readouterr().out)
    assert set(document["figures"]) >= FIGURES
    assert document["figures"]["overload_failed"] == 0
    assert document["figures"]["adapting_steps"] > 0
    assert all(entry["answered"] > 0 and entry["failed"] == 0 for entry in document["rows"])
