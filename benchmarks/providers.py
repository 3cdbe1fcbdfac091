"""A bundle on each execution provider that starts here: milliseconds of a call, beside the CPU's.

    python -m benchmarks.providers --bundle examples/digits/bundle --json

Wall time, copies between host and device included, since that is what a request waits for. `first` is the first call
of that batch size, which compiles or searches kernels.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np

from acclimate.adapters.requests import Forward, Gradient, Rows
from acclimate.runtime.bundle import Bundle, BundleError, read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from benchmarks._report import ROOT, Report, Value, emit, parser

BATCHES = (1, 16, 64)
CALLS = ("frozen", "predict", "forward", "vjp")


def main() -> None:
    """Every provider at every batch size."""
    chosen = _parse()
    bundle = read_bundle(chosen.bundle)
    rows = [row for provider in chosen.providers for row in _measured(bundle, provider, chosen)]
    if not rows:
        raise SystemExit("skipped: none of these providers starts here")
    first = chosen.providers[0]
    figures = {
        f"{row['provider']}_b{row['batch']}_{call}_over_{first}": float(row[f"{call}_ms"]) / float(base[f"{call}_ms"])
        for row in rows
        for base in rows
        if base["provider"] == first != row["provider"] and base["batch"] == row["batch"]
        for call in CALLS
    }
    emit(Report("providers", figures, rows), as_json=chosen.json)


def _measured(bundle: Bundle, provider: str, chosen: argparse.Namespace) -> list[Mapping[str, Value]]:
    """One row a batch size; none where the provider does not start."""
    threads = {"intra_op_threads": chosen.threads, "adaptation_threads": chosen.threads, "specialised_sessions": 0}
    try:
        engine = OnnxEngine(bundle, OnnxOptions(provider, precision=chosen.precision, **threads))
    except BundleError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return []
    rows: list[Mapping[str, Value]] = []
    for size in BATCHES:
        row: dict[str, Value] = {"provider": provider, "batch": size}
        for name, call in _calls(engine, size).items():
            start = time.perf_counter()
            call()
            row[f"{name}_first_ms"] = 1e3 * (time.perf_counter() - start)
            row[f"{name}_ms"] = _milliseconds(call, chosen.rounds)
        rows.append(row)
    engine.close()
    return rows


def _calls(engine: OnnxEngine, size: int) -> dict[str, Callable[[], object]]:
    source = engine.source
    inputs = np.concatenate([source.canary_inputs] * (1 + size // len(source.canary_inputs)))[:size]
    rows = Rows(
        inputs,
        np.tile(source.theta, (size, 1)),
        np.tile(source.stats, (size, 1)),
        np.zeros(size, np.intp),
        np.ones(size, np.float32),
    )
    cotangent = np.ones((size, source.classes), np.float32)
    folded = engine.fold(source.theta, source.stats)
    return {
        "frozen": lambda: engine.frozen(inputs),
        "predict": lambda: engine.predict(inputs, folded),
        "forward": lambda: engine.forward(Forward(rows)),
        "vjp": lambda: engine.vjp(Gradient(rows, cotangent)),
    }


def _milliseconds(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


def _parse() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--bundle", type=Path, default=ROOT / "examples" / "digits" / "bundle")
    options.add_argument("--providers", nargs="+", default=["cpu", "cuda"], help="the first is compared with")
    options.add_argument("--precision", default="float32", choices=["float32", "float16", "bfloat16"])
    options.add_argument("--rounds", type=int, default=50, help="timed calls of each")
    options.add_argument("--threads", type=int, default=0, help="of the CPU's graphs; 0: one a core")
    return options.parse_args()


if __name__ == "__main__":
    main()
