"""From a torch module to a bundle: the whole export, in order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import nn

from acclimate.adapters.folding import Folding
from acclimate.adapters.manifest import (
    FORWARD_FILE,
    FROZEN_FILE,
    SOURCE_FILE,
    VJP_FILE,
    Cost,
    Manifest,
    TensorSpec,
)
from acclimate.export.activations import planned_scales
from acclimate.export.backward.vjp import COTANGENT, observe_graph, vjp_graph
from acclimate.export.calibration import CalibrationData, checked
from acclimate.export.cost import flops, milliseconds
from acclimate.export.errors import CalibrationError, UnsupportedModel
from acclimate.export.graph import Graph
from acclimate.export.integer import fold_arrays, forward_graph, frozen_graph
from acclimate.export.onnx_format import OPSET, to_onnx
from acclimate.export.passes.sites import Adaptable, at_source, with_sites
from acclimate.export.ranges import Range, measured_ranges
from acclimate.export.report import Report
from acclimate.export.statistics import SourceStatistics, rows_of_one, source_statistics
from acclimate.export.trace import Preprocessing, traced
from acclimate.export.verify import Limits, Parity, enforce, forward_error, int8_figures, vjp_errors
from acclimate.export.weights import QuantizedWeight, quantized_weights, stored_in_int8
from acclimate.export.write import file_entries, refuse_other_content, write_bundle

OBSERVE_FILE = "observe.onnx"
HEADROOMS = (1.0, 1.25, 1.5, 2.0)
_COST_BATCH = 16
_DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
Notify = Callable[[str], None]


@dataclass(frozen=True)
class BundleSpec:
    """What the user decides about a bundle.

    Attributes:
        name, version: how the daemon calls the model.
        classes: one label per logit.
        preprocessing: from a client's uint8 pixels to the module's input.
        sites: glob patterns over module names; the batch norms that match are adaptable.
        headroom: factor on calibrated activation ranges. Each doubling costs one of eight bits; see the report.
        canaries: samples kept for the daemon's guard.
        limits: what the checks tolerate.
    """

    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    sites: tuple[str, ...] = ("*",)
    version: str = "1"
    headroom: float = 1.25
    canaries: int = 32
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class _Graphs:
    """The graphs of a bundle, and what they were made from."""

    source: Graph
    frozen: Graph
    forward: Graph
    vjp: Graph
    observe: Graph
    folding: Folding

    def serialized(self) -> dict[str, bytes]:
        """ONNX files by name."""
        graphs = {FROZEN_FILE: self.frozen, FORWARD_FILE: self.forward, VJP_FILE: self.vjp, OBSERVE_FILE: self.observe}
        return {name: to_onnx(graph, name.partition(".")[0]).SerializeToString() for name, graph in graphs.items()}


def compile_model(
    model: nn.Module, data: CalibrationData, spec: BundleSpec, out: Path, notify: Notify | None = None
) -> Report:
    """Compile `model` and write the bundle at `out`, or write nothing.

    Args:
        model: maps float32 `[B, C, H, W]` (already preprocessed) to logits `[B, classes]`.
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
    if notify is None:
        from acclimate.export.progress import stages

        with stages(sys.stderr) as shown:
            return compile_model(model, data, spec, out, shown)
    start = time.perf_counter()
    refuse_other_content(out)
    data = checked(data, len(spec.classes))
    _refuse_non_finite(model)
    notify("tracing the model")
    adaptable = _traced(model, data, spec)
    notify("quantizing weights and activations")
    weights = quantized_weights(adaptable.graph)
    ranges = measured_ranges(at_source(adaptable), data.inputs)
    graphs = _graphs(adaptable, weights, ranges, spec.headroom)
    notify("checking against torch")
    parity = _parity(model, data, spec, adaptable, weights, graphs)
    enforce(parity, spec.limits)
    notify("measuring source statistics")
    statistics = source_statistics(adaptable, graphs.frozen, graphs.vjp, data, spec.canaries)
    notify("measuring cost")
    files = graphs.serialized() | {SOURCE_FILE: _arrays(adaptable, graphs.folding, statistics)}
    cost = _cost(adaptable, graphs, files, data)
    report = Report(
        name=spec.name,
        sites=len(adaptable.sites),
        parameters=adaptable.parameters.size,
        model_parameters=sum(p.numel() for p in model.parameters()),
        float_bytes=4 * sum(p.numel() for p in model.parameters()),
        file_bytes={name: len(content) for name, content in files.items()},
        nodes={
            FROZEN_FILE: len(graphs.frozen.nodes),
            FORWARD_FILE: len(graphs.forward.nodes),
            VJP_FILE: len(graphs.vjp.nodes),
            OBSERVE_FILE: len(graphs.observe.nodes),
        },
        parity=parity,
        limits=spec.limits,
        cost=cost,
        headroom=spec.headroom,
        headroom_effect=_headroom_effect(adaptable, weights, ranges, graphs, data),
        calibration_samples=len(data.inputs),
        seconds=round(time.perf_counter() - start, 2),
    )
    notify("writing")
    files |= report.files()
    write_bundle(out, files, _manifest(spec, adaptable, statistics, cost, files))
    return report


def _refuse_non_finite(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UnsupportedModel(f"weight {name!r} is not finite; the checkpoint is damaged")


def _traced(model: nn.Module, data: CalibrationData, spec: BundleSpec) -> Adaptable:
    adaptable = with_sites(traced(model, spec.preprocessing, data.inputs.shape[1:]), spec.sites)
    (logits,) = adaptable.graph.outputs.values()
    if len(logits.shape) != 2 or logits.shape[1] != len(spec.classes):
        raise CalibrationError(
            f"classes: {len(spec.classes)} names were given, but the model returns {list(logits.shape)}"
        )
    return adaptable


def _graphs(
    model: Adaptable, weights: dict[str, QuantizedWeight], ranges: Mapping[str, Range], headroom: float
) -> _Graphs:
    plan = planned_scales(model.graph, ranges, headroom)
    arrays = fold_arrays(model, weights, plan)
    folding = Folding.of(model.sites, model.parameters, model.statistics, arrays)
    vjp = vjp_graph(model)
    return _Graphs(
        source=at_source(model),
        frozen=frozen_graph(model, weights, plan, folding),
        forward=forward_graph(model, weights, plan),
        vjp=stored_in_int8(vjp, weights),
        observe=stored_in_int8(observe_graph(vjp), weights),
        folding=folding,
    )


def _parity(
    model: nn.Module,
    data: CalibrationData,
    spec: BundleSpec,
    adaptable: Adaptable,
    weights: dict[str, QuantizedWeight],
    graphs: _Graphs,
) -> Parity:
    vjp, moments = vjp_errors(model, spec.preprocessing, adaptable, graphs.vjp, weights, data.inputs)
    return Parity(
        forward_rel_error=forward_error(model, spec.preprocessing, graphs.source, data.inputs[:64]),
        vjp_rel_error=vjp,
        batch_stats_rel_error=moments,
        **int8_figures(graphs.source, graphs.frozen, data),  # type: ignore[arg-type]
    )


def _headroom_effect(
    model: Adaptable,
    weights: dict[str, QuantizedWeight],
    ranges: Mapping[str, Range],
    graphs: _Graphs,
    data: CalibrationData,
) -> dict[str, dict[str, float | None]]:
    """What other factors would have cost on the source data."""
    result = {}
    for headroom in HEADROOMS:
        plan = planned_scales(model.graph, ranges, headroom)
        folding = Folding.of(model.sites, model.parameters, model.statistics, fold_arrays(model, weights, plan))
        frozen = frozen_graph(model, weights, plan, folding)
        result[f"{headroom:g}"] = int8_figures(graphs.source, frozen, data)
    return result


def _arrays(model: Adaptable, folding: Folding, statistics: SourceStatistics) -> bytes:
    return save(
        {
            "theta": model.theta,
            "stats": model.stats,
            "fisher": statistics.fisher,
            "class_prior": statistics.class_prior,
            "canary.inputs": statistics.canary_inputs,
            "canary.labels": statistics.canary_labels,
            "fold.weight_scale": folding.weight_scale,
            "fold.input_scale": folding.input_scale,
            "fold.offset": folding.offset,
        }
    )


def _cost(model: Adaptable, graphs: _Graphs, files: Mapping[str, bytes], data: CalibrationData) -> Cost:
    (image,) = model.graph.inputs
    (logits,) = model.graph.outputs.values()
    size = min(_COST_BATCH, len(data.inputs))
    rows = rows_of_one(model, size, alpha=1.0) | {
        image: data.inputs[:size],
        COTANGENT: np.full((size, logits.shape[1]), 1 / size, np.float32),
    }
    return Cost(
        forward_flops=flops(graphs.source),
        vjp_flops=flops(graphs.vjp),
        forward_ms=milliseconds(files[FROZEN_FILE], {image: data.inputs[:1]}, 1),
        vjp_ms=milliseconds(files[VJP_FILE], rows, size),
    )


def _manifest(
    spec: BundleSpec, model: Adaptable, statistics: SourceStatistics, cost: Cost, files: Mapping[str, bytes]
) -> Manifest:
    provenance: dict[str, Any] = {
        "exporter": f"acclimate {version('acclimate')}",
        "torch": torch.__version__,
        "opset": OPSET,
        "source": "torch",
        "headroom": spec.headroom,
    }
    return Manifest(
        name=spec.name,
        version=spec.version,
        task="image-classification",
        classes=spec.classes,
        inputs=_specs(model.graph.inputs),
        outputs=_specs(model.graph.outputs),
        parameters=model.parameters,
        statistics=model.statistics,
        sites=model.sites,
        calibration=statistics.calibration,
        cost=cost,
        files=file_entries(files),
        provenance=provenance,
    )


def _specs(values: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, _DATATYPES[value.dtype.name], value.shape) for name, value in values.items())
