"""What Triton's own load generator says of the daemon: unary calls, streams, and sequences that learn.

    python -m benchmarks.perf_analyzer [--json] [--bundle DIR] [--requests N] [--binary PATH]

It needs `perf_analyzer` (PyPI: perf-analyzer; the wheel holds a Linux program) on the PATH, or named by --binary; it
runs as it comes. Client and daemon share this machine's cores.

unary_per_s, unary_p50_us, unary_p99_us          one request at a time
stream_per_s, stream_p99_us                      four under way on one stream
sequences_per_s, sequences_p99_us                unary, four sequences of 20 requests at a time, each a session
sequence_stream_per_s, sequence_stream_p99_us    the same on a stream
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from acclimate.runtime.client.local import LocalDaemon, local_daemon
from benchmarks._report import ROOT, Report, Value, emit, parser

BUNDLE = ROOT / "examples" / "digits" / "bundle"
MODEL = "digits"
SEQUENCE = ("--sequence-length", "20")
STREAM = ("--async", "--streaming")
# Spread of throughput and latency, in per cent, within which perf_analyzer takes three windows for one.
STABLE_PER_CENT = 100
PATIENCE_SECONDS = 300.0
COLUMNS = {
    "per_s": "Inferences/Second",
    "p50_us": "p50 latency",
    "p90_us": "p90 latency",
    "p99_us": "p99 latency",
    "queue_us": "Server Queue",
    "infer_us": "Server Compute Infer",
    "output_us": "Server Compute Output",
}


@dataclass(frozen=True, slots=True)
class Load:
    """One run: how the model describes itself, what perf_analyzer is told, and how many requests are under way."""

    name: str
    scheduling: str
    options: tuple[str, ...]
    concurrency: int


LOADS = (
    Load("unary", "dynamic", (), 1),
    Load("unary, 4 at a time", "dynamic", (), 4),
    Load("stream", "dynamic", STREAM, 4),
    Load("sequences", "sequence", SEQUENCE, 4),
    Load("sequence stream", "sequence", STREAM + SEQUENCE, 4),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print."""
    options = parser(__doc__)
    options.add_argument("--bundle", type=Path, default=BUNDLE, help="bundle of a model named digits")
    options.add_argument("--requests", type=int, default=3_000, help="requests of a window, of three (default 3000)")
    options.add_argument("--binary", default="perf_analyzer", help="the program (default: from the PATH)")
    chosen = options.parse_args(arguments)
    binary = shutil.which(chosen.binary)
    if binary is None:
        options.error(
            f"{chosen.binary} is not to be found; pip install 'perf-analyzer>=2', whose wheel needs a C "
            "library of version 2.38 or newer, or name it with --binary"
        )
    rows: list[Mapping[str, Value]] = []
    for load in LOADS:
        with serving(chosen.bundle, load.scheduling) as daemon:
            rows.append({"load": load.name, **measured(binary, daemon.target, load, chosen.requests)})
    emit(Report("perf_analyzer", figures(rows), rows), as_json=chosen.json)


def figures(rows: Sequence[Mapping[str, Value]]) -> dict[str, float]:
    """The figures that the module's description lists."""
    by_name = {str(row["load"]): row for row in rows}
    chosen = {"unary_p50_us": float(by_name["unary"]["p50_us"])}
    for prefix, name in (
        ("unary", "unary"), ("stream", "stream"), ("sequences", "sequences"), ("sequence_stream", "sequence stream"),
    ):  # fmt: skip
        chosen |= {f"{prefix}_{key}": float(by_name[name][key]) for key in ("per_s", "p99_us")}
    return chosen


@contextmanager
def serving(bundle: Path, scheduling: str) -> Iterator[LocalDaemon]:
    """A daemon whose ModelConfig says `scheduling`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "acclimate.toml"
        file.write_text(f'[open_inference]\nscheduling = "{scheduling}"\n', encoding="utf-8")
        with local_daemon([bundle], "--config", str(file)) as daemon:
            yield daemon


def measured(binary: str, target: str, load: Load, requests: int) -> dict[str, Value]:
    """What perf_analyzer reports of one load.

    Raises:
        RuntimeError: it failed; what it said is in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.csv"
        command = [binary, "-m", MODEL, "-u", target, "-i", "grpc", "-b", "1", *load.options]
        command += ["--concurrency-range", str(load.concurrency), "--measurement-mode", "count_windows"]
        command += ["--measurement-request-count", str(requests), "-s", str(STABLE_PER_CENT), "-f", str(file)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
        if result.returncode != 0 or not file.is_file():
            raise RuntimeError(f"perf_analyzer ended with code {result.returncode}: {result.stdout[-600:]}")
        with file.open(encoding="utf-8", newline="") as opened:
            row = next(csv.DictReader(opened))
    return {"concurrency": load.concurrency, **{key: float(row[column]) for key, column in COLUMNS.items()}}


if __name__ == "__main__":
    main()
