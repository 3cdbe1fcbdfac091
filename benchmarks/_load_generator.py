"""Sends calls that are made already, by the clock or as many as fit, and notes how each ended and how long it took.

Open loop: every call goes out at its time, whatever became of those before, and its latency counts from that time, so
that a daemon which stalls is charged for all who came meanwhile (a closed loop would wait with it and never notice).
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from acclimate.oip.v1 import inference_pb2
from benchmarks._report import Value

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
TIMEOUT_SECONDS = 60.0
PERCENTILES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9}
# Waiting for a moment: sleep until shortly before it, since a sleep ends late.
EARLY_SECONDS = 0.0002
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0))

Call = Callable[[bytes], Any]


@dataclass
class Load:
    """What became of the calls of one phase.

    Attributes:
        seconds: from the first call to the last reply.
        accepted: latencies of those that were answered, seconds, in the order of the answers.
        codes: how many ended with which status.
        cpu_seconds: processor time of whoever answered, 0 if it was not measured.
    """

    seconds: float = 0.0
    accepted: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = 0.0

    @property
    def cpu_ms(self) -> float:
        """Processor time of a call, milliseconds."""
        return 1e3 * self.cpu_seconds / self.codes.total()

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.codes["OK"] / self.seconds

    @property
    def refused(self) -> int:
        """How many there was no room for."""
        return self.codes["RESOURCE_EXHAUSTED"]

    @property
    def failed(self) -> int:
        """How many ended neither well nor refused for want of room."""
        return self.codes.total() - self.codes["OK"] - self.refused

    def ms(self, percentile: float) -> float:
        """That percentile of the latencies, milliseconds.

        Raises:
            RuntimeError: nothing was answered.
        """
        if not self.accepted:
            raise RuntimeError(f"no call was answered: {dict(self.codes)}")
        return 1e3 * float(np.percentile(self.accepted, percentile))

    def plus(self, other: Load) -> Load:
        """Both together."""
        seconds, cpu_seconds = self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds
        return Load(seconds, self.accepted + other.accepted, self.codes + other.codes, cpu_seconds)


@dataclass(frozen=True, slots=True)
class Credited:
    """A rpc that carries its caller's credential."""

    call: Call
    future: Callable[..., Any]

    def __call__(self, payload: bytes) -> Any:
        """One call."""
        return self.call(payload)


@contextmanager
def connected(target: str, method: str, kind: str = "unary_unary") -> Iterator[Any]:
    """One rpc of a daemon, of bytes to bytes."""
    with grpc.insecure_channel(target, OPTIONS) as channel:
        yield getattr(channel, kind)(method)


def one_by_one(call: Call, payloads: Sequence[bytes], seconds: float) -> Load:
    """The next call when the last was answered, for so long."""
    load, begun, number = Load(), time.perf_counter(), 0
    now = begun
    while now - begun < seconds:
        call(payloads[number % len(payloads)])
        sent, now = now, time.perf_counter()
        load.accepted.append(now - sent)
        number += 1
    load.codes["OK"] = number
    load.seconds = now - begun
    return load


def open_loop(rpc: Any, payloads: Sequence[bytes], rate: float, seconds: float, seed: int = 0) -> Load:
    """Calls at the times of a Poisson process of `rate` per second; returns when each has ended."""
    generator = np.random.default_rng(seed)
    arrivals: NDArray[np.float64] = np.cumsum(generator.exponential(1.0 / rate, int(rate * seconds) + 1))
    flight = _Flight(rpc)
    begun = time.perf_counter()
    for number, arrival in enumerate(arrivals[arrivals < seconds].tolist()):
        _sleep_until(begun + arrival)
        flight.send(payloads[number % len(payloads)], begun + arrival)
    return flight.landed(begun)


def saturated(rpc: Any, payloads: Sequence[bytes], in_flight: int, seconds: float = float("inf")) -> Load:
    """`in_flight` calls under way at any time, for so long; without `seconds` each payload once."""
    flight, room = _Flight(rpc), threading.Semaphore(in_flight)
    begun, number = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        if number == len(payloads) and seconds == float("inf"):
            break
        room.acquire()
        flight.send(payloads[number % len(payloads)], time.perf_counter(), room.release)
        number += 1
    return flight.landed(begun)


def streamed(target: str, payloads: Sequence[bytes], in_flight: int, seconds: float) -> Load:
    """`in_flight` requests under way on one ModelStreamInfer for so long; a reply that refuses is a failure."""
    load, room, over = Load(), threading.Semaphore(in_flight), threading.Event()
    sent: deque[float] = deque()

    def requests() -> Iterator[bytes]:
        for number in count():
            room.acquire()
            if over.is_set():
                return
            sent.append(time.perf_counter())
            yield payloads[number % len(payloads)]

    with connected(target, STREAM, "stream_stream") as rpc:
        begun = time.perf_counter()
        for reply in rpc(requests(), timeout=TIMEOUT_SECONDS):
            now = time.perf_counter()
            refused = bool(inference_pb2.ModelStreamInferResponse.FromString(reply).error_message)
            load.codes["refused in the stream" if refused else "OK"] += 1
            load.accepted.append(now - sent.popleft())
            if now - begun >= seconds:
                over.set()
            room.release()
        load.seconds = time.perf_counter() - begun
    return load


def with_token(rpc: Any, token: str) -> Any:
    """The same rpc, said to be from whoever has the token."""
    metadata = (("authorization", f"Bearer {token}"),)
    return Credited(partial(rpc, metadata=metadata), partial(rpc.future, metadata=metadata))


def costing(run: Callable[[], Load], clock: Callable[[], float]) -> Load:
    """A phase, and what it took on that clock of processor time."""
    begun = clock()
    load = run()
    load.cpu_seconds = clock() - begun
    return load


def cpu_clock(pid: int) -> Callable[[], float]:
    """Processor time of another process so far, seconds."""

    def read() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    return read


def row(phase: str, load: Load, rate: float = 0.0, note: str = "") -> dict[str, Value]:
    """A phase as the report shows it.

    `offered_per_s` is 0 where calls were sent as fast as they were answered, `cpu_ms` where nobody measured it.
    """
    percentiles = {name: load.ms(percentile) for name, percentile in PERCENTILES.items()}
    counts = {"answered": load.codes["OK"], "refused": load.refused, "failed": load.failed}
    rates = {"offered_per_s": rate, "answered_per_s": load.per_second}
    return {"phase": phase, **rates, **percentiles, "cpu_ms": load.cpu_ms, **counts, "note": note}


class _Flight:
    """Calls under way, and the account of those that ended; callbacks come on gRPC's thread."""

    def __init__(self, rpc: Any) -> None:
        self._rpc = rpc
        self._load = Load()
        self._sent = self._ended = 0
        self._last = 0.0
        self._changed = threading.Condition()

    def send(self, payload: bytes, intended: float, done: Callable[[], None] = lambda: None) -> None:
        """Begin one call."""

        def ended(future: Any) -> None:
            now = time.perf_counter()
            code = future.code()
            with self._changed:
                if code is grpc.StatusCode.OK:
                    self._load.accepted.append(now - intended)
                self._load.codes[code.name] += 1
                self._ended += 1
                self._last = now
                self._changed.notify_all()
            done()

        self._sent += 1
        self._rpc.future(payload, timeout=TIMEOUT_SECONDS).add_done_callback(ended)

    def landed(self, begun: float) -> Load:
        """Wait for all of them."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended == self._sent)
        self._load.seconds = self._last - begun
        return self._load


def _sleep_until(moment: float) -> None:
    while (left := moment - time.perf_counter()) > 0:
        time.sleep(max(left - EARLY_SECONDS, 0.0))
