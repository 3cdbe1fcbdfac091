"""An adapted session as an ONNX Runtime adapter: the inputs of `forward.onnx` that are one session's, in one file.

ONNX Runtime reads such a file with `LoraAdapter.Load` and feeds it where `RunOptions.add_active_adapter` names it
(https://onnxruntime.ai, "Run generative AI models with LoRA adapters"; the format is `onnxruntime.AdapterFormat`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from safetensors.numpy import load

from acclimate.adapters.manifest import SOURCE_FILE
from acclimate.export.graph import Array
from acclimate.export.session_state import read_file, read_forward, read_manifest, read_state, taken
from acclimate.export.staging import staged


def write_adapter(bundle: Path, state: Path, out: Path, host: Path | None = None) -> None:
    """Write a session as an adapter for the bundle's `forward.onnx`, or write nothing.

    Args:
        bundle: folder of the bundle that the session ran on.
        state: safetensors file with the session's parameters and statistics by name.
        out: the adapter; one that exists is replaced.
        host: where to write `forward.onnx` with the source's values as defaults of its inputs, if anywhere.

    Raises:
        ExportError: the bundle is damaged, or the state is not one of its sessions'.
    """
    manifest = read_manifest(bundle)
    session = read_state(manifest, state)
    forward, source = read_forward(bundle, manifest), read_file(bundle, manifest, SOURCE_FILE)
    own = taken(manifest, forward, source, session.theta, session.stats)
    model_version = int(manifest.version) if manifest.version.isdecimal() else 1
    with staged(out) as path:
        _adapter(own, session.version, model_version).export_adapter(str(path))
    if host is not None:
        arrays = load(source)
        defaults = taken(manifest, forward, source, arrays["theta"], arrays["stats"])
        with staged(host) as path:
            path.write_bytes(with_defaults(forward, defaults).SerializeToString())


def with_defaults(forward: onnx.ModelProto, defaults: Mapping[str, Array]) -> onnx.ModelProto:
    """The model with values for inputs that nobody feeds; it answers as the source until an adapter is active.

    `InferenceSession.run` in Python wants every input without a default in the feed, adapter or not.
    """
    model = onnx.ModelProto()
    model.CopyFrom(forward)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in defaults.items())
    return model


def _adapter(own: Mapping[str, Array], version: int, model_version: int) -> ort.AdapterFormat:
    result = ort.AdapterFormat()
    result.set_adapter_version(version)
    result.set_model_version(model_version)
    result.set_parameters(
        {name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values)) for name, values in own.items()}
    )
    return result
