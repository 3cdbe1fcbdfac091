"""How much the daemon takes from a client that costs little, and what an answer costs the daemon."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median

from benchmarks._http2 import Connection, http2
from benchmarks._load_generator import INFER, Load, costing, cpu_clock, one_by_one, row
from benchmarks._load_phases import IN_FLIGHT, TURNS
from benchmarks._load_subject import Subject, indexed, statistics
from benchmarks._report import Value


def measured(subject: Subject) -> tuple[dict[str, float], list[Mapping[str, Value]]]:
    """As much as it takes, one sample a request, against the engine here on batches of the size made, by turns."""
    payloads = [subject.infer(1, start=number) for number in range(32)]
    served, seconds = Load(), subject.seconds / 5
    ratios: list[float] = []
    sizes: list[int] = []
    with subject.serving() as daemon, http2(daemon.target, INFER) as wire, statistics(daemon, subject) as counts:
        saturated(wire, payloads, IN_FLIGHT, subject.seconds / 5)
        for _ in range(TURNS):
            before = counts()
            through = costing(partial(saturated, wire, payloads, IN_FLIGHT, seconds), cpu_clock(daemon.pid))
            samples, calls = (after - first for after, first in zip(counts(), before, strict=True))
            batch = [subject.samples(max(1, round(samples / calls)))]
            own = costing(partial(one_by_one, indexed(subject.engine, batch), [b"\0"], seconds), time.process_time)
            ratios.append(through.per_second / (own.per_second * len(batch[0])))
            served = served.plus(through)
            sizes.append(len(batch[0]))
    figures = {
        "throughput_ratio_http2": median(ratios),
        "saturated_samples_per_s_http2": served.per_second,
        "daemon_cpu_us": 1e3 * served.cpu_ms,
    }
    return figures, [row("plain HTTP/2, saturated", served, note=f"{median(sizes):g} samples a batch")]


def saturated(wire: Connection, payloads: Sequence[bytes], in_flight: int, seconds: float) -> Load:
    """At most so many calls under way at any time, for so long: fewer while the connection has no room for more."""
    load, begun, sent = Load(), time.perf_counter(), 0
    under_way: dict[int, float] = {}
    now = begun
    while now - begun < seconds or under_way:
        calls = []
        while now - begun < seconds and len(under_way) < in_flight and wire.has_room(len(payloads[0])):
            number, call = wire.call(payloads[sent % len(payloads)])
            under_way[number] = time.perf_counter()
            calls.append(call)
            sent += 1
        if calls:
            wire.send(b"".join(calls))
        ended = wire.ended()
        now = time.perf_counter()
        for number, well in ended:
            load.codes["OK" if well else "failed"] += 1
            if well:
                load.accepted.append(now - under_way[number])
            del under_way[number]
    load.seconds = now - begun
    return load
