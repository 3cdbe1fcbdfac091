"""Reading a bundle directory: manifest, hashes, and the arrays of the source model. Nothing is executed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from acclimate.adapters.errors import ManifestError
from acclimate.adapters.manifest import MANIFEST_FILE, SOURCE_FILE, FileEntry, Manifest
from acclimate.adapters.source import Source

# A manifest is text about a few dozen tensors; anything larger is not one.
MAX_MANIFEST_BYTES = 16 * 1024 * 1024


class BundleError(Exception):
    """The bundle cannot be served: unreadable, incomplete, tampered with, or of another format."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: where it lies, what it says, every array of `source.safetensors`, every graph.

    The graphs are kept as the bytes that were hashed, so that what was verified is what runs.
    """

    path: Path
    manifest: Manifest
    manifest_sha256: str
    source: Source
    tensors: dict[str, NDArray[Any]]
    graphs: dict[str, bytes]


def read_bundle(path: Path) -> Bundle:
    """Read and verify a bundle directory.

    Raises:
        BundleError: a file is missing or does not match its hash, or the manifest or arrays are malformed;
            the message names the file and the fix.
    """
    raw = _read(path / MANIFEST_FILE, MAX_MANIFEST_BYTES)
    try:
        manifest = Manifest.from_json(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path / MANIFEST_FILE}: {error}") from error
    except ManifestError as error:
        raise BundleError(f"{path / MANIFEST_FILE}: {error}") from error
    contents = {name: _verified(path / name, entry) for name, entry in manifest.files.items()}
    tensors = _tensors(path / SOURCE_FILE, contents[SOURCE_FILE])
    graphs = {name: content for name, content in contents.items() if name.endswith(".onnx")}
    digest = hashlib.sha256(raw).hexdigest()
    return Bundle(path, manifest, digest, _source(path, manifest, tensors), tensors, graphs)


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
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); is this a bundle directory?") from error
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
    inputs, labels = tensors.get("canary.inputs"), tensors.get("canary.labels")
    if inputs is None or labels is None or len(inputs) != len(labels):
        raise BundleError(f"{path / SOURCE_FILE}: 'canary.inputs' and 'canary.labels' must be there, of one length")
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
    )


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    copy = array.copy()
    copy.flags.writeable = False
    return copy
