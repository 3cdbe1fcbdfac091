"""What a daemon is put through under load, one function a subject; each returns its figures and rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

from acclimate.runtime.client import Client
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
)
from benchmarks._load_subject import Subject, indexed, statistics
from benchmarks._report import Value

SERVICE = "/acclimate.v1.SessionService/"
# Calls under way when the daemon is to be kept busy: more than a batch of them.
IN_FLIGHT = 64
ROUNDS = 3
# Of throughput, many and short: a machine that is shared changes its pace from one second to the next.
TURNS = 8
LOADED = 0.6
FEW = 10
BATCHED_ROWS = 16
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
    served, alone, seconds = Load(), Load(), subject.seconds / 5
    ratios, costs, sizes = [], [], []
    with subject.serving() as daemon, connected(daemon.target, INFER) as rpc, statistics(daemon, subject) as counts:
        saturated(rpc, payloads, IN_FLIGHT, subject.seconds / 5)
        for _ in range(TURNS):
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
        wait(
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


def streaming(subject: Subject) -> Outcome:
    """One sample a request on one ModelStreamInfer, against the engine on batches of the size made, by turns."""
    payloads = [subject.infer(1, start=number) for number in range(32)]
    served, alone, seconds, ratios = Load(), Load(), subject.seconds / 5, []
    with subject.serving() as daemon, statistics(daemon, subject) as counts:
        stream = partial(streamed, daemon.target, payloads, IN_FLIGHT)
        stream(subject.seconds / 5)
        for _ in range(TURNS):
            before = counts()
            through = costing(partial(stream, seconds), cpu_clock(daemon.pid))
            samples, calls = (after - first for after, first in zip(counts(), before, strict=True))
            batch = [subject.samples(max(1, round(samples / calls)))]
            own = costing(partial(one_by_one, indexed(subject.engine, batch), [b"\0"], seconds), time.process_time)
            ratios.append(through.per_second / (own.per_second * len(batch[0])))
            served, alone = served.plus(through), alone.plus(own)
    rows: Rows = [row("one stream, 1 sample a request", served, note=f"{IN_FLIGHT} under way")]
    return {"throughput_ratio_stream": median(ratios), "saturated_samples_per_s_stream": served.per_second}, rows


def _updates(client: Client, subject: Subject, names: Sequence[str]) -> int:
    views = [client.session(subject.model, name).get() for name in names]
    return sum(view.updates + view.rollbacks for view in views)


def wait(reached: Callable[[], bool], meanwhile: Callable[[], object]) -> None:
    """Do something until it is so; a RuntimeError if it never is."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        if time.monotonic() > give_up:
            raise RuntimeError(f"what was waited for did not come in {PATIENCE_SECONDS:g} s")
        meanwhile()
