"""What goes into a bundle beside its graphs: the source's arrays and the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import torch
from safetensors.numpy import save

from acclimate.adapters.folding import Folding
from acclimate.adapters.manifest import Cost, Manifest, TensorSpec
from acclimate.export.features import last_linear
from acclimate.export.graph import Value
from acclimate.export.integer import folded
from acclimate.export.onnx_format import OPSET
from acclimate.export.passes.sites import Adaptable
from acclimate.export.spec import BundleSpec
from acclimate.export.statistics import SourceStatistics
from acclimate.export.write import file_entries

_DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
_TASKS = {np.dtype(np.uint8): "image-classification", np.dtype(np.int64): "text-classification"}


def source_arrays(model: Adaptable, folding: Folding, statistics: SourceStatistics) -> bytes:
    """`source.safetensors`; `docs/bundle-format.md` gives shapes and meanings."""
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
        | dict(statistics.others)
    )


def manifest(
    spec: BundleSpec, model: Adaptable, statistics: SourceStatistics, cost: Cost, files: Mapping[str, bytes]
) -> Manifest:
    """`manifest.json` for these files."""
    provenance = {
        "exporter": f"acclimate {version('acclimate')}",
        "torch": torch.__version__,
        "opset": OPSET,
        "source": "torch",
        "headroom": spec.headroom,
        **spec.provenance,
    }
    return Manifest(
        name=spec.name,
        version=spec.version,
        task=_TASKS[next(iter(model.graph.inputs.values())).dtype],
        classes=spec.classes,
        inputs=_specs(model.graph.inputs),
        outputs=_specs(model.graph.outputs),
        parameters=model.parameters,
        statistics=model.statistics,
        sites=folded(model),
        calibration=statistics.calibration,
        cost=cost,
        files=file_entries(files),
        provenance=provenance,
        lora=tuple(update.lora for update in model.updates),
        features=0 if (layer := last_linear(model.graph)) is None else layer.width,
    )


def _specs(values: Mapping[str, Value]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, _DATATYPES[value.dtype.name], value.shape) for name, value in values.items())
