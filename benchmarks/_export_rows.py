"""One row of the export benchmark: an architecture through the compiler, and how far its graphs are from torch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from acclimate.export.bundle_graphs import BundleGraphs, Quantized
from acclimate.export.calibration import CalibrationData
from acclimate.export.graph import Array
from acclimate.export.passes.sites import with_sites
from acclimate.export.session import first_output, session
from acclimate.export.trace import traced
from acclimate.export.verify import Limits, forward_error, int8_figures, relative_error, row_errors
from benchmarks._architectures import ARCHITECTURES, Architecture

HEADROOM = 1.5
SAMPLES = 16
MEASURED = (
    "sites",
    "parameters",
    "forward_rel_error",
    "vjp_rel_error",
    "vjp_other_sides",
    "int8_drop_points",
    "int8_rel_error",
    "bytes_ratio",
)
Row = dict[str, Any]


def row(name: str) -> Row:
    """Export one architecture as far as it goes; `refused` says why it went no further."""
    architecture = {known.name: known for known in ARCHITECTURES}[name]
    start = time.perf_counter()
    found: Row = {"model": name, "weights": architecture.weights}
    try:
        found |= _measured(architecture)
        found["refused"] = _outside(found)
    except Exception as error:
        # A table over many models goes on whatever one of them raises.
        found |= dict.fromkeys(MEASURED) | {"refused": in_one_line(error)}
    return found | {"seconds": round(time.perf_counter() - start, 2)}


def in_one_line(error: BaseException) -> str:
    """An error's first line, with its type where it is not one of the exporter's own."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _outside(found: Row) -> str:
    """Why the exporter's own check would refuse the bundle, or nothing."""
    limits = Limits()
    allowed = (
        ("forward_rel_error", limits.forward),
        ("vjp_rel_error", limits.vjp),
        ("int8_drop_points", limits.int8_points),
    )
    for key, limit in allowed:
        if found[key] is not None and not found[key] <= limit:
            return f"{key} is {found[key]:.2g}, limit {limit:g}"
    return ""


def _measured(architecture: Architecture) -> Row:
    data = architecture.data() if architecture.data is not None else None
    inputs = data.calibration if data is not None else _samples(architecture)
    model, preprocessing = architecture.make(), architecture.preprocessing
    graph = traced(model, preprocessing, architecture.sample, inputs.dtype)
    adaptable = with_sites(graph, adapt=architecture.adapt)
    quantized = Quantized.of(adaptable, inputs)
    graphs = BundleGraphs.of(quantized, HEADROOM)
    errors = row_errors(model, preprocessing, quantized, graphs.vjp, inputs)
    few = inputs[:SAMPLES]
    expected = first_output(session(quantized.source), few)
    weights = sum(parameter.numel() for parameter in model.parameters())
    drop = None
    if data is not None:
        held_out = CalibrationData(data.images, data.labels)
        drop = int8_figures(quantized.source, graphs.frozen, held_out)["int8_drop_points"]
    found = (
        adaptable.places,
        adaptable.parameters.size,
        forward_error(model, preprocessing, quantized.source, few),
        errors.gradients,
        errors.other_sides,
        # Random weights have no accuracy to lose; how far int8 moves the logits is said instead.
        drop,
        relative_error(first_output(session(graphs.frozen), few), expected),
        sum(map(len, graphs.serialized().values())) / (4 * weights),
    )
    return dict(zip(MEASURED, found, strict=True))


def _samples(architecture: Architecture) -> Array:
    generator = np.random.default_rng(0)
    if architecture.words:
        return generator.integers(1, architecture.words, (SAMPLES, *architecture.sample))
    return _pictures(generator, architecture.sample)


def _pictures(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Noise at scales from the whole picture down to a pixel, larger scales stronger, as in photographs.

    White noise would not do: all of its pictures look alike after some pooling, and statistics over a few of them
    have variances that are all rounding.
    """
    channels, *size = shape
    total = np.full((SAMPLES, *shape), 128.0)
    for cells, strength in ((1, 50), (2, 35), (4, 25), (8, 18), (16, 12)):
        coarse = generator.standard_normal((SAMPLES, 1, cells, cells)) + generator.standard_normal(
            (SAMPLES, channels, cells, cells)
        )
        smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), tuple(size), mode="bilinear").numpy()
        total += strength * generator.uniform(0.3, 1.5, (SAMPLES, 1, 1, 1)) * smooth
    total += 4 * generator.standard_normal(total.shape)
    pictures: Array = np.clip(total, 0, 255).astype(np.uint8)
    return pictures
