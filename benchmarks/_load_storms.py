"""More than a daemon can take: what becomes of what it accepts, and of a tenant that is not to blame."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from typing import Any

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.client.local import LocalDaemon
from benchmarks._load_generator import INFER, connected, one_by_one, open_loop, row, saturated, with_token
from benchmarks._load_phases import BATCHED_ROWS, FEW, PATIENCE_SECONDS, Outcome, Rows, wait
from benchmarks._load_subject import Subject
from benchmarks._prometheus import scraped
from benchmarks._rpcs import LANGUAGE
from benchmarks.startup import rss_mb

OVERLOAD = 5.0
# Answers in a row as fast as the unloaded ones: it has recovered.
RECOVERED = 5


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


def flood(target: str, token: str, payloads: Sequence[bytes], rate: float, seconds: float, tell: Any = None) -> None:
    """What a tenant does that minds nobody else; `tell` gets what became of it."""
    with connected(target, INFER) as rpc:
        load = open_loop(with_token(rpc, token) if token else rpc, payloads, rate, seconds, seed=1)
    if tell is not None:
        tell.send(load)


def _overloaded(daemon: LocalDaemon) -> bool:
    return "\nacclimate_overloaded 1.0" in scraped(daemon)


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


def beside_texts(subject: Subject, seconds: float) -> Outcome:
    """Five times as many images as it takes, beside a language model that is asked one text after another.

    Which model a request is for only its message says, so here those that are refused have been read.
    """
    payloads = [subject.infer(BATCHED_ROWS, start=number) for number in range(8)]
    asked = oip.ModelInferRequest(model_name=LANGUAGE)
    asked.inputs.add(name="text_input", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a text")
    asked.parameters["max_tokens"].int64_param = 2
    texts = [asked.SerializeToString()]
    with subject.serving("--language-model", LANGUAGE) as daemon, connected(daemon.target, INFER) as rpc:
        one_by_one(rpc, payloads + texts, subject.seconds / 5)
        most = saturated(rpc, payloads, FEW, subject.seconds / 2)
        calm = one_by_one(rpc, payloads, subject.seconds)
        quiet = saturated(rpc, texts, 1, subject.seconds / 2)
        sent = (daemon.target, "", payloads, OVERLOAD * most.per_second, seconds)
        told, hears = get_context("spawn").Pipe(duplex=False)
        other = get_context("spawn").Process(target=flood, args=(*sent, hears), daemon=True)
        other.start()
        wait(lambda: _overloaded(daemon) or not other.is_alive(), lambda: time.sleep(0.05))
        beside = saturated(rpc, texts, 1, seconds / 2)
        storm = told.recv()
        other.join()
    rows: Rows = [
        row("one text after another, alone", quiet),
        row(f"the same beside {OVERLOAD:g} times as many images as it takes", beside),
        row("those images", storm, OVERLOAD * most.per_second),
    ]
    return {
        "texts_p50_ratio": beside.ms(50) / quiet.ms(50),
        "texts_refused": float(beside.refused + beside.failed),
        "texts_overload_p99_ratio": storm.ms(99) / calm.ms(99),
    }, rows


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
        other = get_context("spawn").Process(target=flood, args=told, daemon=True)
        other.start()
        wait(lambda: _overloaded(daemon) or not other.is_alive(), lambda: time.sleep(0.05))
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
