"""What a daemon is put through under load, one function a subject; each returns its figures and rows."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from statistics import median
from typing import Any

from acclimate.runtime.client import Client
from acclimate.runtime.client.local import LocalDaemon
from acclimate.v1 import session_service_pb2 as pb
from benchmarks._load_generator import (
    INFER,
    Load,
    connected,
    costing,
    cpu_clock,
    one_by_one,
    open_loop,
    row,
    saturated,
    streamed,
    with_token,
)
from benchmarks._load_subject import Subject, indexed, statistics
from benchmarks._report import Value
from benchmarks.startup import rss_mb

SERVICE = "/acclimate.v1.SessionService/"
# Calls under way when the daemon is to be kept busy: more than a batch of them.
IN_FLIGHT = 64
ROUNDS = 3
LOADED = 0.6
FEW = 10
BATCHED_ROWS = 16
OVERLOAD = 5.0
# Answers in a row as fast as the unloaded ones: it has recovered.
RECOVERED = 5
PATIENCE_SECONDS = 60.0

Rows = list[Mapping[str, Value]]
Outcome = tuple[dict[str, float], Rows]


def overhead(subject: Subject) -> Outcome:
    """One sample, one request at a time, against the engine in this process, by turns."""
    payloads = [subject.infer(1, start=number) for number in range(32)]
    arrays = [subject.samples(1, number) for number in range(32)]
    served, own, seconds = Load(), Load(), subject.seconds / 4
    engine, numbers = indexed(subject.engine, arrays), [bytes([number]) for number in range(32)]
    with subject.serving() as daemon, connected(daemon.target, INFER) as rpc:
        for number in range(2 * ROUNDS + 1):
            through = costing(partial(one_by_one, rpc, payloads, seconds), cpu_clock(daemon.pid))
            alone = costing(partial(one_by_one, engine, numbers, seconds), time.process_time)
            # The first round warms both up.
            served, own = (through, alone) if number < 1 else (served.plus(through), own.plus(alone))
    rows: Rows = [row("unary, one at a time", served), row("the engine alone, one at a time", own)]
    return {
        "predict_overhead_p50_ms": served.ms(50) - own.ms(50),
        "predict_overhead_cpu_ms": served.cpu_ms - own.cpu_ms,
    }, rows


def throughput(subject: Subject, rows_per_request: int) -> Outcome:
    """As much as it takes, against the engine in this process on batches of the size that the daemon made, by turns."""
    payloads = [subject.infer(rows_per_request, start=number) for number in range(32)]
    served, alone, seconds = Load(), Load(), subject.seconds / 2
    ratios, costs, sizes = [], [], []
    with subject.serving() as daemon, connected(daemon.target, INFER) as rpc, statistics(daemon, subject) as counts:
        saturated(rpc, payloads, IN_FLIGHT, subject.seconds / 5)
        for _ in range(ROUNDS):
            before = counts()
            through = costing(partial(saturated, rpc, payloads, IN_FLIGHT, seconds), cpu_clock(daemon.pid))
            samples, calls = (after - first for after, first in zip(counts(), before, strict=True))
            batch = [subject.samples(max(1, round(samples / calls)))]
            engine = indexed(subject.engine, batch)
            own = costing(partial(one_by_one, engine, [b"\0"], seconds), time.process_time)
            costs.append(own.cpu_ms / len(batch[0]) / (through.cpu_ms / rows_per_request))
            ratios.append(through.per_second * rows_per_request / (own.per_second * len(batch[0])))
            served, alone = served.plus(through), alone.plus(own)
            sizes.append(len(batch[0]))
    size = f"{median(sizes):g} samples a batch"
    what = f"{rows_per_request} sample{'s' if rows_per_request > 1 else ''} a request"
    rows: Rows = [
        row(f"saturated, {what}", served, note=size),
        row("the engine alone, the same batches", alone, note=size),
    ]
    suffix = "" if rows_per_request == 1 else f"_{rows_per_request}_samples"
    return {
        f"throughput_ratio{suffix}": median(ratios),
        f"throughput_ratio_cpu{suffix}": median(costs),
        f"saturated_samples_per_s{suffix}": served.per_second * rows_per_request,
    }, rows


def adapting(subject: Subject, sessions: int, recipe: str) -> Outcome:
    """Sessions that have learnt, at 60 % of what they can take: learning on against off, by turns."""
    names = [f"cam-{number}" for number in range(sessions)]
    still, learning = (
        [subject.infer(1, name, adapt=adapt, start=number) for number, name in enumerate(names * 8)]
        for adapt in (False, True)
    )
    loads, ratios = {"off": Load(), "on": Load()}, []
    with subject.serving() as daemon, Client(daemon.target) as client, connected(daemon.target, INFER) as rpc:
        for name in names:
            client.create_session(subject.model, name, recipe=recipe)
        _wait(
            lambda: min(client.session(subject.model, name).get().version for name in names) > 0,
            lambda: saturated(rpc, learning, IN_FLIGHT, subject.seconds / 5),
        )
        most = saturated(rpc, still, IN_FLIGHT, subject.seconds / 2)
        rate, steps = LOADED * most.per_second, _updates(client, subject, names)
        for number in range(2 * ROUNDS):
            off, on = (open_loop(rpc, sent, rate, subject.seconds / 2, seed=number) for sent in (still, learning))
            # Round by round, since one in which the machine did something else would outweigh all others.
            ratios.append(on.ms(99) / off.ms(99))
            loads = {"off": loads["off"].plus(off), "on": loads["on"].plus(on)}
        steps = _updates(client, subject, names) - steps
    note = f"{steps} steps in {loads['on'].seconds:.0f} s"
    rows: Rows = [
        row(f"{sessions} sessions, saturated, adaptation off", most),
        row("60 % of it, adaptation off", loads["off"], rate),
        row("60 % of it, adaptation on", loads["on"], rate, note=note),
    ]
    return {"p99_ratio_adapting": median(ratios), "adapting_steps": float(steps)}, rows


def many(subject: Subject, count: int) -> Outcome:
    """Thousands of sessions: what one costs when it is opened and when it has answered, and how it is found."""
    names = [f"cam-{number:05}" for number in range(count + FEW)]
    with subject.serving(sessions={"max_sessions": count + FEW}) as daemon:
        opening = [
            pb.CreateSessionRequest(parent=f"models/{subject.model}", session_id=name).SerializeToString()
            for name in names
        ]
        with (
            connected(daemon.target, f"{SERVICE}CreateSession") as create,
            connected(daemon.target, f"{SERVICE}GetSession") as get,
            connected(daemon.target, INFER) as infer,
        ):
            few, many = _requests(subject, names[:FEW]), _requests(subject, names[FEW:])
            saturated(create, opening[:FEW], FEW)
            saturated(infer, [subject.infer(1, name) for name in names[:FEW]], FEW)
            lookup = [one_by_one(get, few, subject.seconds / 3)]
            base = rss_mb(daemon.pid)
            created = saturated(create, opening[FEW:], IN_FLIGHT)
            opened = rss_mb(daemon.pid)
            lookup.append(one_by_one(get, many, subject.seconds / 3))
            used = saturated(infer, [subject.infer(1, name, start=n) for n, name in enumerate(names[FEW:])], IN_FLIGHT)
            answered = rss_mb(daemon.pid)
    if created.failed or created.refused or used.failed or used.refused:
        raise RuntimeError(f"not every session was opened and used: {dict(created.codes)}, {dict(used.codes)}")
    rows: Rows = [
        row(f"GetSession, {FEW} sessions", lookup[0]),
        row(f"CreateSession, {count} sessions", created, note=f"{IN_FLIGHT} under way"),
        row(f"GetSession, {count} sessions", lookup[1]),
        row(f"the first answer of {count} sessions", used, note=f"{IN_FLIGHT} under way"),
    ]
    return {
        "bytes_per_session_10k": 1e6 * (opened - base) / count,
        "bytes_per_session_10k_answered": 1e6 * (answered - base) / count,
        "sessions_created_per_s": created.per_second,
        "lookup_10_us": 1e3 * lookup[0].ms(50),
        "lookup_10k_us": 1e3 * lookup[1].ms(50),
    }, rows


def streaming(subject: Subject) -> Outcome:
    """One sample a request on one ModelStreamInfer, against the engine on batches of the size made, by turns."""
    payloads = [subject.infer(1, start=number) for number in range(32)]
    served, alone, seconds, ratios = Load(), Load(), subject.seconds / 2, []
    with subject.serving() as daemon, statistics(daemon, subject) as counts:
        stream = partial(streamed, daemon.target, payloads, IN_FLIGHT)
        stream(subject.seconds / 5)
        for _ in range(ROUNDS):
            before = counts()
            through = costing(partial(stream, seconds), cpu_clock(daemon.pid))
            samples, calls = (after - first for after, first in zip(counts(), before, strict=True))
            batch = [subject.samples(max(1, round(samples / calls)))]
            own = costing(partial(one_by_one, indexed(subject.engine, batch), [b"\0"], seconds), time.process_time)
            ratios.append(through.per_second / (own.per_second * len(batch[0])))
            served, alone = served.plus(through), alone.plus(own)
    rows: Rows = [row("one stream, 1 sample a request", served, note=f"{IN_FLIGHT} under way")]
    return {"throughput_ratio_stream": median(ratios), "saturated_samples_per_s_stream": served.per_second}, rows


def fairness(subject: Subject, seconds: float) -> Outcome:
    """A tenant at a tenth of what the daemon takes, alone and beside one that sends five times as much as it takes."""
    calm_payloads = [subject.infer(BATCHED_ROWS, start=number) for number in range(8)]
    with subject.serving_tenants(("quiet", "loud")) as (daemon, tokens), ExitStack() as open_now:
        quiet, loud = (
            with_token(open_now.enter_context(connected(daemon.target, INFER)), tokens[name])
            for name in ("quiet", "loud")
        )
        one_by_one(loud, calm_payloads, subject.seconds / 5)
        most = saturated(loud, calm_payloads, FEW, subject.seconds / 2)
        rate = most.per_second / 10
        alone = open_loop(quiet, calm_payloads, rate, seconds)
        told = (daemon.target, tokens["loud"], calm_payloads, OVERLOAD * most.per_second, seconds)
        # A process of its own, for the two would wait for each other in one.
        other = get_context("spawn").Process(target=flood, args=told)
        other.start()
        _wait(lambda: _overloaded(daemon), lambda: time.sleep(0.05))
        beside = open_loop(quiet, calm_payloads, rate, seconds / 2)
        other.join()
    rows: Rows = [
        row("a tenant at a tenth of what it takes, alone", alone, rate),
        row(f"the same beside one that sends {OVERLOAD:g} times what it takes", beside, rate),
    ]
    return {
        "fairness_p99_ratio": beside.ms(99) / alone.ms(99),
        "fairness_p50_ratio": beside.ms(50) / alone.ms(50),
        "fairness_refused": float(beside.refused),
    }, rows


def overloaded(subject: Subject, seconds: float, rows_per_request: int) -> Outcome:
    """Five times what it can take, as it is configured by default."""
    payloads = [subject.infer(rows_per_request, start=number) for number in range(8)]
    with subject.serving() as daemon, connected(daemon.target, INFER) as rpc:
        one_by_one(rpc, payloads, subject.seconds / 5)
        most = saturated(rpc, payloads, FEW, subject.seconds / 2)
        calm = one_by_one(rpc, payloads, subject.seconds)
        with _highest_rss(daemon.pid) as highest:
            before = rss_mb(daemon.pid)
            storm = open_loop(rpc, payloads, OVERLOAD * most.per_second, seconds)
            ended = time.perf_counter()
            recovery = _recovery(rpc, payloads, calm.ms(99) / 1e3) - ended
    what = f"{rows_per_request} sample{'s' if rows_per_request > 1 else ''} a request"
    rows: Rows = [
        row(f"{what}, saturated", most, note=f"{FEW} under way"),
        row(f"{what}, one at a time", calm),
        row(f"{what}, {OVERLOAD:g} times as much as it takes, {seconds:g} s", storm, OVERLOAD * most.per_second),
    ]
    figures = {
        "p99_ratio": storm.ms(99) / calm.ms(99),
        "goodput_ratio": storm.per_second / most.per_second,
        "refused": float(storm.refused),
        "failed": float(storm.failed),
        "recovery_seconds": max(recovery, 0.0),
        "rss_growth_mb": max(highest) - before,
    }
    suffix = "" if rows_per_request == BATCHED_ROWS else f"_{rows_per_request}_samples"
    return {f"overload_{name}{suffix}": value for name, value in figures.items()}, rows


def flood(target: str, token: str, payloads: Sequence[bytes], rate: float, seconds: float) -> None:
    """What a tenant does that minds nobody else."""
    with connected(target, INFER) as rpc:
        open_loop(with_token(rpc, token), payloads, rate, seconds, seed=1)


def _overloaded(daemon: LocalDaemon) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.http_port}/metrics", timeout=PATIENCE_SECONDS) as page:
        return b"\nacclimate_overloaded 1.0" in page.read()


def _recovery(rpc: Any, payloads: Sequence[bytes], fast: float) -> float:
    """When the first of several answers in a row that took no longer than `fast` was there."""
    begun, good, number = time.perf_counter(), 0, 0
    first = begun
    while good < RECOVERED:
        sent = time.perf_counter()
        if sent - begun > PATIENCE_SECONDS:
            raise RuntimeError(f"no {RECOVERED} answers in a row within {fast:.4f} s after {PATIENCE_SECONDS:g} s")
        future = rpc.future(payloads[number % len(payloads)])
        quick = future.exception() is None and time.perf_counter() - sent <= fast
        first = time.perf_counter() if quick and not good else first
        good, number = good + 1 if quick else 0, number + 1
    return first


@contextmanager
def _highest_rss(pid: int) -> Iterator[list[float]]:
    """Resident memory while a block runs, MB, every fifth of a second and at its end."""
    seen, over = [rss_mb(pid)], threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            seen.append(rss_mb(pid))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
        seen.append(rss_mb(pid))


def _requests(subject: Subject, names: Sequence[str]) -> list[bytes]:
    prefix = f"models/{subject.model}/sessions/"
    return [pb.GetSessionRequest(name=prefix + name).SerializeToString() for name in names]


def _updates(client: Client, subject: Subject, names: Sequence[str]) -> int:
    views = [client.session(subject.model, name).get() for name in names]
    return sum(view.updates + view.rollbacks for view in views)


def _wait(reached: Callable[[], bool], meanwhile: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        if time.monotonic() > give_up:
            raise RuntimeError(f"a session has learnt nothing in {PATIENCE_SECONDS:g} s")
        meanwhile()
