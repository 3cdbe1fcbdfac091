"""Reading what a session has learnt against the bundle it ran on: verified files, rows, and what its model takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, load_file

from acclimate.adapters.errors import LayoutError, ManifestError
from acclimate.adapters.folding import FOLD_ARRAYS, Folding, fold
from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import FORWARD_FILE, MANIFEST_FILE, SOURCE_FILE, Manifest
from acclimate.export.backward.vjp import STATS, THETA
from acclimate.export.errors import ExportError
from acclimate.export.graph import Array
from acclimate.export.integer import BIAS, SCALE


@dataclass(frozen=True)
class SessionState:
    """One session of a bundle: `theta [P]`, `stats [Q]`, and the version that its file names."""

    theta: Float
    stats: Float
    version: int


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle's folder.

    Raises:
        ExportError: there is none, or it is malformed.
    """
    try:
        return Manifest.from_json(json.loads((bundle / MANIFEST_FILE).read_text(encoding="utf-8")))
    except OSError as error:
        raise ExportError(f"bundle: {str(bundle)!r} has no readable {MANIFEST_FILE} ({error.strerror})") from error
    except (ValueError, ManifestError) as error:
        raise ExportError(f"bundle: {str(bundle / MANIFEST_FILE)!r}: {error}") from error


def read_state(manifest: Manifest, state: Path) -> SessionState:
    """A session from a file of named tensors.

    Raises:
        ExportError: the file cannot be read, or it is not of a session of this bundle.
    """
    try:
        tensors = load_file(state)
    except OSError as error:
        raise ExportError(f"state: {str(state)!r} cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise ExportError(f"state: {str(state)!r} is not a safetensors file ({error})") from error
    layouts = manifest.parameters, manifest.statistics
    known = {entry.name for layout in layouts for entry in layout.slices}
    if unknown := sorted(set(tensors) - known):
        raise ExportError(f"state: {unknown[:3]} are not parameters of model {manifest.name!r}; is this its bundle?")
    if broken := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise ExportError(f"state: {broken[:3]} are not finite")
    try:
        theta, stats = (
            layout.pack({entry.name: tensors[entry.name] for entry in layout.slices if entry.name in tensors})
            for layout in layouts
        )
    except LayoutError as error:
        raise ExportError(f"state: {error}; is this the bundle of the session's model?") from error
    return SessionState(theta, stats, _version(state))


def read_forward(bundle: Path, manifest: Manifest) -> onnx.ModelProto:
    """`forward.onnx`, verified, with everything it keeps in other files of the bundle inside.

    Raises:
        ExportError: a file is missing, was changed, or is not the bundle's.
    """
    model = onnx.load_from_string(read_file(bundle, manifest, FORWARD_FILE))
    outside = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    for location in {ExternalDataInfo(tensor).location for tensor in outside}:
        read_file(bundle, manifest, location)
    load_external_data_for_model(model, str(bundle))
    return model


def read_file(bundle: Path, manifest: Manifest, name: str) -> bytes:
    """The bytes of a file that the manifest lists.

    Raises:
        ExportError: it is not listed, cannot be read, or was changed.
    """
    if name not in manifest.files:
        raise ExportError(f"bundle: {name!r} is not a file of the bundle; export the bundle again")
    try:
        content = (bundle / name).read_bytes()
    except OSError as error:
        raise ExportError(f"bundle: {str(bundle / name)!r} cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != manifest.files[name].sha256:
        raise ExportError(f"bundle: {str(bundle / name)!r} was changed after export; export the bundle again")
    return content


def taken(manifest: Manifest, forward: onnx.ModelProto, source: bytes, theta: Float, stats: Float) -> dict[str, Array]:
    """What `forward.onnx` takes of one session, by input: made from `theta [P]` and `stats [Q]`.

    Raises:
        ExportError: the graph takes something that no session has.
    """
    scale, bias = fold(_folding(manifest, load(source)), theta, stats)
    own: dict[str, Array] = {SCALE: scale, BIAS: bias, THETA: theta, STATS: stats}
    samples, result = {spec.name for spec in manifest.inputs}, {}
    for entry in forward.graph.input:
        if entry.name in samples:
            continue
        shape = tuple(size.dim_value for size in entry.type.tensor_type.shape.dim)
        if entry.name not in own or own[entry.name].shape != shape:
            raise ExportError(
                f"bundle: {FORWARD_FILE} takes {entry.name!r} {list(shape)}, which no session has; export it again"
            )
        result[entry.name] = own[entry.name]
    return result


def _folding(manifest: Manifest, arrays: Mapping[str, Array]) -> Folding:
    try:
        parts = {name: arrays[f"fold.{name}"] for name in FOLD_ARRAYS}
        return Folding.of(manifest.sites, manifest.parameters, manifest.statistics, parts)
    except (KeyError, LayoutError) as error:
        raise ExportError(
            f"bundle: {SOURCE_FILE} does not say how its sites fold ({error}); export it again"
        ) from error


def _version(state: Path) -> int:
    """The version that the file's metadata name; 1 where they name none."""
    with safe_open(state, "numpy") as file:
        said = (file.metadata() or {}).get("version", "")
    return int(said) if said.isdecimal() else 1
