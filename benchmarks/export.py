"""Architectures through the export compiler: does each become graphs, and do the graphs agree with torch?

A row per architecture, at the published depth and width but on small pictures and short texts (see
`_architectures.py`). Weights are random unless the row says that they are real. `forward_rel_error` compares the
float graph with torch, `vjp_rel_error` is that of the worst row of the gradient against float64 autograd, and
`bytes_ratio` is the integer forward graph over the weights in float32. What cannot be exported says why.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from acclimate.export import Preprocessing
from acclimate.export.bundle_graphs import BundleGraphs, Quantized
from acclimate.export.errors import ExportError
from acclimate.export.graph import Array
from acclimate.export.passes.sites import with_sites
from acclimate.export.session import first_output, session
from acclimate.export.trace import traced
from acclimate.export.verify import Limits, forward_error, relative_error, row_errors
from benchmarks._report import Report, emit, parser

if TYPE_CHECKING:
    from benchmarks._architectures import Architecture

HEADROOM = 1.5
SAMPLES = 16
Row = dict[str, Any]


def main() -> None:
    """Print the table or, with `--json`, one JSON object."""
    arguments = _parser().parse_args()
    chosen = _chosen(arguments.models)
    rows = []
    for architecture in chosen:
        rows.append(row(architecture))
        print(f"{architecture.name}: {rows[-1]['refused'] or 'done'}", file=sys.stderr)
    emit(Report("export", figures(rows), rows), as_json=arguments.json)


def row(architecture: Architecture) -> Row:
    """Export one architecture as far as it goes."""
    start = time.perf_counter()
    found: Row = {"model": architecture.name, "weights": architecture.weights}
    try:
        found |= _measured(architecture, _samples(architecture))
        found["refused"] = _outside(found)
    except ExportError as error:
        found |= dict.fromkeys(_MEASURED) | {"refused": str(error)}
    return found | {"seconds": round(time.perf_counter() - start, 2)}


def _outside(found: Row) -> str:
    """Why the exporter's own check would refuse the bundle, or nothing."""
    limits = Limits()
    for key, limit in (("forward_rel_error", limits.forward), ("vjp_rel_error", limits.vjp)):
        if not found[key] <= limit:
            return f"{key} is {found[key]:.2g}, limit {limit:.0e}"
    return ""


_MEASURED = (
    "norms",
    "parameters",
    "forward_rel_error",
    "vjp_rel_error",
    "int8_drop_points",
    "int8_rel_error",
    "bytes_ratio",
)


def _measured(architecture: Architecture, inputs: Array) -> Row:
    model, preprocessing = architecture.make(), Preprocessing(mean=(0.5,), std=(0.5,))
    adaptable = with_sites(traced(model, preprocessing, architecture.sample, inputs.dtype))
    quantized = Quantized.of(adaptable, inputs)
    graphs = BundleGraphs.of(quantized, HEADROOM)
    errors = row_errors(model, preprocessing, quantized, graphs.vjp, inputs)
    expected = first_output(session(quantized.source), inputs)
    weights = sum(parameter.numel() for parameter in model.parameters())
    found = (
        len(adaptable.sites) + len(adaptable.affines),
        adaptable.parameters.size,
        forward_error(model, preprocessing, quantized.source, inputs),
        errors.gradients,
        # Random weights have no accuracy to lose; how far int8 moves the logits is said instead.
        None,
        relative_error(first_output(session(graphs.frozen), inputs), expected),
        len(graphs.serialized()["forward.onnx"]) / (4 * weights),
    )
    return dict(zip(_MEASURED, found, strict=True))


def figures(rows: list[Row]) -> Mapping[str, float]:
    """How many architectures stand, and every error by model."""
    exported = [found for found in rows if not found["refused"]]
    counts = {
        "models": len(rows),
        "exported": len(exported),
    }
    keys = ("forward_rel_error", "vjp_rel_error", "bytes_ratio", "seconds")
    return counts | {f"{found['model']}_{key}": found[key] for found in exported for key in keys}


def _samples(architecture: Architecture) -> Array:
    generator = np.random.default_rng(0)
    if architecture.words:
        return generator.integers(1, architecture.words, (SAMPLES, *architecture.sample))
    return generator.integers(0, 256, (SAMPLES, *architecture.sample)).astype(np.uint8)


def _chosen(names: str | None) -> list[Architecture]:
    if find_spec("transformers") is None:
        print("skipped: the models are those of transformers; pip install '.[bench]'", file=sys.stderr)
        raise SystemExit(0)
    from benchmarks._architectures import ARCHITECTURES

    known = {architecture.name: architecture for architecture in ARCHITECTURES}
    wanted = names.split(",") if names else list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"--models: {unknown} are not known; choose from {sorted(known)}")
    return [known[name] for name in wanted]


def _parser() -> Any:
    made = parser(__doc__)
    made.add_argument("--models", help="names, separated by commas; all by default")
    return made


if __name__ == "__main__":
    main()
