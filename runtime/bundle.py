"""Reading a bundle directory: manifest, hashes, and the arrays of the source model. Nothing is executed."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from acclimate.adapters.errors import LayoutError
from acclimate.adapters.features import FeatureStatistics
from acclimate.adapters.manifest import MANIFEST_FILE, SOURCE_FILE, WEIGHTS_FILE, FileEntry, Manifest, TensorSpec
from acclimate.adapters.source import Source, histogram
from acclimate.runtime.datatypes import DTYPES

# A manifest is text about a few dozen tensors; anything larger is not one.
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
# More than ONNX, which is protobuf, can hold in one file.
MAX_FILE_BYTES = 2**31
# As it stands in resource names, `models/{name}`.
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")


class BundleError(Exception):
    """The bundle cannot be served: unreadable, incomplete, tampered with, or of another format."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: where it lies, what it says, every array of `source.safetensors`, every graph.

    `weights` are the arrays that the graphs share, by the names of their initializers; older bundles have none.
    The graphs are kept as the bytes that were hashed, so that what was verified is what runs.
    """

    path: Path
    manifest: Manifest
    manifest_sha256: str
    source: Source
    tensors: dict[str, NDArray[Any]]
    graphs: dict[str, bytes]
    weights: dict[str, NDArray[Any]]


def read_bundle(path: Path) -> Bundle:
    """Read and verify a bundle directory.

    Raises:
        BundleError: a file is missing or does not match its hash, or the manifest or arrays are malformed;
            the message names the file and the fix.
    """
    manifest, digest = read_manifest(path)
    contents = {name: _verified(path / name, entry) for name, entry in manifest.files.items()}
    tensors = _tensors(path / SOURCE_FILE, contents[SOURCE_FILE])
    graphs = {name: content for name, content in contents.items() if name.endswith(".onnx")}
    weights = _tensors(path / WEIGHTS_FILE, contents[WEIGHTS_FILE]) if WEIGHTS_FILE in contents else {}
    return Bundle(path, manifest, digest, _source(path, manifest, tensors), tensors, graphs, weights)


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """A bundle's manifest and its SHA-256; of the other files nothing is read.

    Raises:
        BundleError: it is missing or malformed, or describes what cannot be served.
    """
    raw = _read(path / MANIFEST_FILE, MAX_MANIFEST_BYTES)
    try:
        manifest = Manifest.from_json(json.loads(raw))
    except Exception as error:
        # Whatever the parser stumbles over, it is the manifest that is wrong.
        raise BundleError(f"{path / MANIFEST_FILE}: {error}") from error
    _refuse_unservable(path / MANIFEST_FILE, manifest)
    return manifest, hashlib.sha256(raw).hexdigest()


def _refuse_unservable(path: Path, manifest: Manifest) -> None:
    """What parses as a manifest may still describe nothing that can be served here."""
    classes, sound = len(manifest.classes), MODEL_NAME.fullmatch(manifest.name)
    figures = (*astuple(manifest.calibration), *astuple(manifest.cost), *(site.epsilon for site in manifest.sites))
    demands = (
        (sound, f"name is {manifest.name[:140]!r}; use letters, digits, '.', '_', '~' or '-'"),
        (len(manifest.inputs) == 1, f"it has {len(manifest.inputs)} inputs; exactly one is served"),
        (all(map(_batched, manifest.inputs)), f"inputs are {manifest.inputs}; expected [-1, ...] of {list(DTYPES)}"),
        (
            [spec.shape for spec in manifest.outputs] == [(-1, classes)] and classes > 1,
            f"outputs are {manifest.outputs}; expected one of shape [-1, {classes}], a column per class, at least 2",
        ),
        (all(map(_figure, figures)), "calibration, cost and epsilons must be finite numbers, not negative"),
        (all(map(_hashed, manifest.files.values())), "files need a hexadecimal sha256 and a size in bytes each"),
    )
    for met, complaint in demands:
        if not met:
            raise BundleError(f"{path}: {complaint}; export the bundle again")


def _batched(spec: TensorSpec) -> bool:
    return spec.datatype in DTYPES and spec.shape[:1] == (-1,) and all(size > 0 for size in spec.shape[1:])


def _figure(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def _hashed(entry: FileEntry) -> bool:
    digest, size = entry.sha256, entry.bytes
    return isinstance(digest, str) and isinstance(size, int) and 0 <= size <= MAX_FILE_BYTES


def _verified(path: Path, entry: FileEntry) -> bytes:
    content = _read(path, entry.bytes)
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry.sha256:
        raise BundleError(
            f"{path}: SHA-256 is {digest[:16]}…, the manifest says {entry.sha256[:16]}…; "
            "the file was changed after export: export again or restore it"
        )
    return content


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path}: cannot be read ({reason}); is this a bundle directory?") from error
    if len(content) > limit:
        raise BundleError(f"{path}: longer than the {limit} bytes it may have; export the bundle again")
    return content


def _tensors(path: Path, content: bytes) -> dict[str, NDArray[Any]]:
    try:
        return dict(load_tensors(content))
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{path}: not a readable safetensors file ({error}); export the bundle again") from error


def _source(path: Path, manifest: Manifest, tensors: dict[str, NDArray[Any]]) -> Source:
    classes, parameters, statistics = (
        len(manifest.classes),
        manifest.parameters.size,
        manifest.statistics.size,
    )
    expected = {
        "theta": (parameters,),
        "stats": (statistics,),
        "fisher": (parameters,),
        "class_prior": (classes,),
    }
    for name, shape in expected.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.shape != shape or tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            given = None if tensor is None else (tensor.dtype.name, tensor.shape)
            raise BundleError(
                f"{path / SOURCE_FILE}: {name!r} is {given}; expected finite float32 of shape {shape}; export again"
            )
    inputs, labels = _canaries(path / SOURCE_FILE, manifest, tensors)
    try:
        features = FeatureStatistics.of(tensors, manifest.features, classes)
        entropy, confidence = (histogram(tensors, name) for name in ("entropy", "confidence"))
    except LayoutError as error:
        raise BundleError(f"{path / SOURCE_FILE}: {error}; export the bundle again") from error
    return Source(
        parameters=manifest.parameters,
        statistics=manifest.statistics,
        theta=_frozen(tensors["theta"]),
        stats=_frozen(tensors["stats"]),
        fisher=_frozen(tensors["fisher"]),
        class_prior=_frozen(tensors["class_prior"]),
        canary_inputs=_frozen(inputs),
        canary_labels=_frozen(labels.astype(np.int64)),
        calibration=manifest.calibration,
        features=features,
        entropy_histogram=entropy,
        confidence_histogram=confidence,
    )


def _canaries(path: Path, manifest: Manifest, tensors: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    inputs, labels, spec = tensors.get("canary.inputs"), tensors.get("canary.labels"), manifest.inputs[0]
    if inputs is None or inputs.dtype != DTYPES[spec.datatype] or inputs.shape[1:] != spec.shape[1:]:
        given = None if inputs is None else (inputs.dtype.name, inputs.shape)
        raise BundleError(f"{path}: 'canary.inputs' is {given}; expected {spec.datatype} {spec.shape}; export again")
    known = range(len(manifest.classes))
    if labels is None or labels.shape != inputs.shape[:1] or not set(labels.tolist()) <= set(known):
        raise BundleError(f"{path}: 'canary.labels' must name a class for each canary input; export the bundle again")
    return inputs, labels


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    copy = array.copy()
    copy.flags.writeable = False
    return copy
