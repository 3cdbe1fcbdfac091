"""The daemon under load over loopback: what it adds to the engine, how much it takes, and what too much does to it.

    python -m benchmarks.load [--json] [--bundle DIR] [--seconds S] [--sessions N] [--many N] [--overload-seconds S]
                              [--phases NAME ...]

predict_overhead_p50_ms      unary p50 at batch 1 less the engine's own in this process (goal 0.7 at most);
                             predict_overhead_cpu_ms is the daemon's processor time less the engine's
throughput_ratio             saturated throughput over the engine's in this process on batches of the same size, one
                             sample a request (goal 0.8 at least); throughput_ratio_cpu the engine's processor time
                             for a sample over the daemon's; *_16_samples with 16 samples a request, *_stream with
                             one sample a request on one ModelStreamInfer
throughput_ratio_http2       the same from a client on a plain socket, which costs a third of grpcio's; daemon_cpu_us
                             is the daemon's processor time for an answer meanwhile, the engine's in it
bare_p50_ms, bare_cpu_us     gRPC's asyncio server with nothing behind it: p50 one at a time, and processor time for
                             an answer when saturated, from the client on a plain socket; bare_registered_* with as
                             many methods registered with gRPC's core as the daemon has
bare_overhead_p50_ms         what such a server adds to the engine that it calls: the floor under
                             predict_overhead_p50_ms_http2, the daemon's from the same client in the same run
p99_ratio_adapting           p99 at 60 % of the saturated load, sessions that learn over the same ones that do not
                             (goal 1.2 at most), median over rounds
bytes_per_session_10k        resident memory of a session, 10,000 of them, beyond the base (goal 30 KB);
                             bytes_per_session_10k_answered with one sample that waits to be learnt from;
                             bytes_per_session_adapted of one that has learnt, a tenth as many copies of one
sessions_created_per_s       CreateSession with 64 calls under way; sessions_created_per_s_stream with 64 messages under
                             way on one CreateSessions (goal 2,000 at least)
lookup_10_us, lookup_10k_us  GetSession with 10 and 10,000 sessions, p50
overload_*                   five times what it takes, as it is configured by default, 16 samples a request:
                             overload_p99_ratio, p99 of what was accepted over the unloaded one (goal below 4);
                             overload_goodput_ratio, answers over those of a load that it can take; refused for want
                             of room, failed in any other way (goal 0), time to recover (goal 2 s) and resident memory
                             gained; *_64_samples with 64 samples a request
texts_*                      a language model asked for one text after another beside five times as many images as the
                             daemon takes: texts_p50_ratio over those alone; texts_refused (goal 0);
                             texts_overload_p99_ratio of the images
fairness_*                   latency of a tenant at a tenth of what the daemon takes, beside one that sends five times
                             what it takes, over the same alone; fairness_refused of its requests

Arrivals at a rate are a Poisson process, sent at their times whatever the daemon does, and a latency counts from its
arrival's time. Client and daemon share this machine's cores; an answer has one thread of the engine on either side.
Without --bundle it is the ResNet-20 of benchmarks.cifar10c, or the digits where its data or torch is not there.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from benchmarks import _load_bare, _load_http2, _load_sessions, _load_storms
from benchmarks import _load_phases as phases
from benchmarks._bundles import add_bundle_options, chosen_bundle
from benchmarks._load_subject import Subject
from benchmarks._report import ROOT, Report, Value, emit, parser

PHASES = ("overhead", "http2", "bare", "throughput", "adapting", "sessions", "stream", "overload", "texts", "fairness")
LARGE_ROWS = 64
DIGITS = ROOT / "examples" / "digits" / "bundle"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print."""
    chosen = _parse(arguments)
    bundle = read_bundle(_bundle(chosen))
    figures: dict[str, float] = {}
    rows: list[Mapping[str, Value]] = []
    engine = OnnxEngine(bundle, OnnxOptions(intra_op_threads=1))
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(bundle, engine, bundle.source.canary_inputs, chosen.seconds, Path(folder))
        for name, phase in _phases(chosen):
            if name not in chosen.phases:
                continue
            found, measured = phase(subject)
            figures |= found
            rows += [{"model": bundle.manifest.name, **one} for one in measured]
    emit(Report("load", figures, rows), as_json=chosen.json)


def _phases(chosen: argparse.Namespace) -> list[tuple[str, Callable[[Subject], phases.Outcome]]]:
    """What is measured, in this order."""
    return [
        ("overhead", phases.overhead),
        ("http2", _load_http2.measured),
        ("bare", _load_bare.measured),
        ("throughput", lambda subject: phases.throughput(subject, 1)),
        ("throughput", lambda subject: phases.throughput(subject, phases.BATCHED_ROWS)),
        ("adapting", lambda subject: phases.adapting(subject, chosen.sessions, chosen.recipe)),
        ("sessions", lambda subject: _load_sessions.many(subject, chosen.many)),
        ("stream", phases.streaming),
        ("overload", lambda subject: _load_storms.overloaded(subject, chosen.overload_seconds, phases.BATCHED_ROWS)),
        ("overload", lambda subject: _load_storms.overloaded(subject, chosen.overload_seconds, LARGE_ROWS)),
        ("texts", lambda subject: _load_storms.beside_texts(subject, chosen.overload_seconds / 2)),
        ("fairness", lambda subject: _load_storms.fairness(subject, chosen.overload_seconds / 2)),
    ]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__)
    add_bundle_options(options)
    options.add_argument("--seconds", type=float, default=4.0, help="length of a phase, about (default 4)")
    options.add_argument("--sessions", type=int, default=8, help="sessions that learn under load (default 8)")
    options.add_argument("--recipe", default="tent", help="what they learn by (default tent: from every sample)")
    options.add_argument("--many", type=int, default=10_000, help="sessions of the figures that say 10k")
    options.add_argument("--overload-seconds", type=float, default=30.0, help="how long it gets too much (default 30)")
    options.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES, help="which to run (default: all)")
    chosen = options.parse_args(arguments)
    if min(chosen.seconds, chosen.overload_seconds) <= 0 or min(chosen.sessions, chosen.many) < 1:
        options.error("--seconds and --overload-seconds must be above 0, --sessions and --many at least 1")
    return chosen


def _bundle(chosen: argparse.Namespace) -> Path:
    """The one that was asked for, or as near to it as this machine has."""
    there = chosen.weights.is_file() and (chosen.data / "source.npz").is_file() and importlib.util.find_spec("torch")
    return chosen_bundle(chosen) if chosen.bundle is not None or there else DIGITS


if __name__ == "__main__":
    main()
