"""From a torch module to a bundle: the whole export, in order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from acclimate.adapters.manifest import SOURCE_FILE, Cost
from acclimate.export.backward.vjp import COTANGENT
from acclimate.export.bundle_graphs import BundleGraphs, Quantized
from acclimate.export.calibration import CalibrationData, checked
from acclimate.export.contents import manifest, source_arrays
from acclimate.export.cost import flops, milliseconds
from acclimate.export.errors import CalibrationError, UnsupportedModel
from acclimate.export.passes.sites import Adaptable, with_sites
from acclimate.export.progress import COMPILER_STAGES, counted, stages
from acclimate.export.report import Report, sizes_by_kind
from acclimate.export.spec import BundleSpec
from acclimate.export.statistics import rows_of_one, source_statistics
from acclimate.export.trace import traced
from acclimate.export.variants import checked_precisions, precision_errors
from acclimate.export.verify import Parity, enforce, forward_error, int8_figures, row_errors
from acclimate.export.write import refuse_other_content, write_bundle

HEADROOMS = (1.0, 1.25, 1.5, 2.0)
_COST_BATCH = 16
Notify = Callable[[str], None]


def compile_model(
    model: nn.Module, data: CalibrationData, spec: BundleSpec, out: Path, notify: Notify | None = None
) -> Report:
    """Compile `model` and write the bundle at `out`, or write nothing.

    Args:
        model: maps float32 `[B, C, H, W]` (already preprocessed), or token ids `[B, length]`, to logits `[B, classes]`.
        data: source samples; 500 to 2,000 are enough.
        spec: names and choices.
        out: the bundle's folder; an older bundle there is replaced at the end, in one rename.
        notify: called with the name of each stage; by default a progress line where stderr is a terminal.

    Raises:
        UnsupportedModel: the model cannot be translated.
        CalibrationError: calibration data do not fit the model.
        VerificationError: the result disagrees with the model by more than `spec.limits`.
        ExportError: `out` holds something else.
    """
    refuse_other_content(out)
    data = checked(data, len(spec.classes))
    _refuse_non_finite(model)
    origin = Origin(
        kind="torch",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        adaptable=lambda: _traced(model, data, spec),
        parity=lambda quantized, graphs: _parity(model, data, spec, quantized, graphs),
    )
    return compile_origin(origin, data, spec, out, notify)


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, and how the graphs made of it are checked against the original.

    Attributes:
        kind: `torch` or `onnx`, for the manifest.
        parameters: weights of the original, adaptable or not.
        adaptable: translates the original.
        parity: compares finished graphs with the original.
    """

    kind: str
    parameters: int
    adaptable: Callable[[], Adaptable]
    parity: Callable[[Quantized, BundleGraphs], Parity]


def compile_origin(
    origin: Origin, data: CalibrationData, spec: BundleSpec, out: Path, notify: Notify | None = None
) -> Report:
    """What `compile_model` does, for a model of any origin; `data` is `checked` already."""
    with nullcontext(notify) if notify is not None else stages(sys.stderr, COMPILER_STAGES) as show:
        return _compiled(origin, data, spec, out, show)


def _compiled(origin: Origin, data: CalibrationData, spec: BundleSpec, out: Path, notify: Notify) -> Report:
    start = time.perf_counter()
    notify("tracing the model")
    adaptable = origin.adaptable()
    notify("quantizing weights and activations")
    quantized = Quantized.of(adaptable, data.inputs, spec.headroom)
    graphs = BundleGraphs.of(quantized, spec.headroom, checked_precisions(spec.precisions))
    notify(f"checking against {origin.kind}")
    parity = origin.parity(quantized, graphs)
    enforce(parity, spec.limits)
    halves = {kind: precision_errors(adaptable, quantized.weights, kind, data.inputs) for kind in spec.precisions}
    notify("measuring source statistics")
    statistics = source_statistics(adaptable, graphs.frozen, graphs.vjp, data, spec.canaries)
    notify("measuring the effect of headroom")
    tried = counted(HEADROOMS, "factors")
    effect = {f"{h:g}": int8_figures(quantized.source, quantized.frozen(h), data) for h in tried}
    notify("measuring cost")
    files = graphs.serialized() | dict(spec.files)
    files[SOURCE_FILE] = source_arrays(adaptable, graphs.folding, statistics)
    report = Report(
        name=spec.name,
        source=origin.kind,
        sites=adaptable.places,
        parameters=adaptable.parameters.size,
        kinds=sizes_by_kind(adaptable.parameters),
        model_parameters=origin.parameters,
        float_bytes=4 * origin.parameters,
        file_bytes={name: len(content) for name, content in files.items()},
        nodes={name: len(graph.nodes) for name, graph in graphs.by_file().items()},
        parity=parity,
        limits=spec.limits,
        cost=_cost(quantized, graphs, data),
        headroom=spec.headroom,
        headroom_effect=effect,
        calibration_samples=len(data.inputs),
        precisions=halves,
        seconds=round(time.perf_counter() - start, 2),
    )
    notify("writing")
    files |= report.files()
    described = manifest(spec, adaptable, statistics, report.cost, files)
    write_bundle(out, files, replace(described, provenance={**described.provenance, "source": origin.kind}))
    return report


def _refuse_non_finite(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UnsupportedModel(f"weight {name!r} is not finite; the checkpoint is damaged")


def _traced(model: nn.Module, data: CalibrationData, spec: BundleSpec) -> Adaptable:
    graph = traced(model, spec.preprocessing, data.inputs.shape[1:], data.inputs.dtype)
    adaptable = with_sites(graph, spec.sites, spec.adapt)
    (logits,) = adaptable.graph.outputs.values()
    if len(logits.shape) != 2 or logits.shape[1] != len(spec.classes):
        raise CalibrationError(
            f"classes: {len(spec.classes)} names were given, but the model returns {list(logits.shape)}"
        )
    return adaptable


def _parity(
    model: nn.Module, data: CalibrationData, spec: BundleSpec, quantized: Quantized, graphs: BundleGraphs
) -> Parity:
    rows = row_errors(model, spec.preprocessing, quantized, graphs.vjp, data.inputs)
    traced_error = forward_error(model, spec.preprocessing, quantized.source, data.inputs[:64])
    return Parity(
        forward_rel_error=max(traced_error, rows.logits),
        vjp_rel_error=rows.gradients,
        batch_stats_rel_error=rows.batch_stats,
        vjp_other_sides=rows.other_sides,
        **int8_figures(quantized.source, graphs.frozen, data),  # type: ignore[arg-type]
    )


def _cost(quantized: Quantized, graphs: BundleGraphs, data: CalibrationData) -> Cost:
    model = quantized.model
    (image,) = model.graph.inputs
    (logits,) = model.graph.outputs.values()
    size = min(_COST_BATCH, len(data.inputs))
    rows = rows_of_one(model, size, alpha=1.0) | {
        image: data.inputs[:size],
        COTANGENT: np.full((size, logits.shape[1]), 1 / size, np.float32),
    }
    return Cost(
        forward_flops=flops(quantized.source),
        vjp_flops=flops(graphs.vjp),
        forward_ms=milliseconds(graphs.frozen, {image: data.inputs[:1]}, 1),
        vjp_ms=milliseconds(graphs.vjp, rows, size),
    )
