"""What gRPC's asyncio server takes by itself, beside the daemon: the floor under its figures.

Three servers of one rpc, which read nothing of a request and answer as many bytes as a prediction has: one with nothing
behind it, one with as many methods registered with gRPC's core as the daemon has (`runtime/rpc/generic.py`), and one
that calls the engine first. The last is as little of a daemon as there can be: what it adds to the engine is gRPC's,
and what the engine's calls leave of the processor's caches for it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from acclimate.runtime.rpc.server import methods
from benchmarks._http2 import Connection, http2
from benchmarks._load_generator import INFER, Load, costing, cpu_clock, one_by_one, row
from benchmarks._load_http2 import saturated
from benchmarks._load_phases import IN_FLIGHT, TURNS
from benchmarks._load_subject import Subject, indexed
from benchmarks._report import Value

SERVICE, METHOD = INFER.removeprefix("/").split("/")
ANSWER = bytes(256)
SERVE = "import sys; from benchmarks._load_bare import serve; serve(*sys.argv[1:])"
ENGINE, DAEMON = "gRPC around the engine", "the daemon"
NAMES = {"bare": "gRPC alone", "bare_registered": f"gRPC alone, {len(methods())} methods registered"}


def measured(subject: Subject) -> tuple[dict[str, float], list[Mapping[str, Value]]]:
    """One at a time, and the first two saturated, from a client on a plain socket, by turns."""
    payloads = [subject.infer(1, start=number) for number in range(32)]
    engine = indexed(subject.engine, [subject.samples(1, number) for number in range(32)])
    seconds = subject.seconds / 8
    alone: dict[str, Load] = {}
    full: dict[str, Load] = {}
    own = Load()
    with ExitStack() as opened:
        path = subject.bundle.path
        wires = {
            name: opened.enter_context(_served(count)) for name, count in zip(NAMES, (0, len(methods())), strict=True)
        }
        wires[ENGINE] = opened.enter_context(_served(0, path))
        daemon = opened.enter_context(subject.serving())
        wires[DAEMON] = opened.enter_context(http2(daemon.target, INFER)), daemon.pid
        for number in range(TURNS + 1):
            one = {name: one_by_one(partial(_answered, wire), payloads, seconds) for name, (wire, _) in wires.items()}
            most = {name: _saturated(*wires[name], payloads, seconds) for name in NAMES}
            itself = one_by_one(engine, [bytes([number]) for number in range(32)], seconds)
            # The first round warms all of them up.
            if number:
                alone = {name: alone.get(name, Load()).plus(load) for name, load in one.items()}
                full = {name: full.get(name, Load()).plus(load) for name, load in most.items()}
                own = own.plus(itself)
    figures = {f"{name}_p50_ms": alone[name].ms(50) for name in NAMES}
    figures |= {f"{name}_cpu_us": 1e3 * load.cpu_ms for name, load in full.items()}
    figures["bare_overhead_p50_ms"] = alone[ENGINE].ms(50) - own.ms(50)
    figures["predict_overhead_p50_ms_http2"] = alone[DAEMON].ms(50) - own.ms(50)
    rows: list[Mapping[str, Value]] = [
        row(f"{NAMES.get(name, name)}, one at a time", load) for name, load in alone.items()
    ]
    return figures, rows + [row(f"{NAMES[name]}, saturated", load) for name, load in full.items()]


def _answered(wire: Connection, payload: bytes) -> None:
    _, call = wire.call(payload)
    wire.send(call)
    while not wire.ended():
        pass


def _saturated(wire: Connection, pid: int, payloads: list[bytes], seconds: float) -> Load:
    return costing(partial(saturated, wire, payloads, IN_FLIGHT, seconds), cpu_clock(pid))


@contextmanager
def _served(registered: int, bundle: Path | None = None) -> Iterator[tuple[Connection, int]]:
    """A connection to such a server, and its process."""
    command = [sys.executable, "-c", SERVE, str(registered), *([str(bundle)] if bundle else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            with http2(f"127.0.0.1:{port}", INFER) as wire:
                yield wire, process.pid
        finally:
            process.terminate()


def _called(bundle: Path | None) -> Callable[[], object]:
    """What is done before each answer."""
    if bundle is None:
        return lambda: None
    read = read_bundle(bundle)
    return partial(OnnxEngine(read, OnnxOptions(intra_op_threads=1)).frozen, read.source.canary_inputs[:1])


async def _serve(registered: int, bundle: Path | None) -> None:
    called = _called(bundle)

    async def answer(_request: bytes, _context: object) -> bytes:
        called()
        return ANSWER

    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    if registered:
        others = {f"Method{number}": handler for number in range(registered)}
        server.add_registered_method_handlers("acclimate.Others", others)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def serve(registered: str, bundle: str = "") -> None:
    """Print the port, and answer until the process is ended."""
    asyncio.run(_serve(int(registered), Path(bundle) if bundle else None))
