"""An adapted session taken out: the bundle's int8 model with the session's parameters inside, as plain ONNX."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from safetensors import SafetensorError
from safetensors.numpy import load, load_file

from acclimate.adapters.errors import LayoutError, ManifestError
from acclimate.adapters.folding import FOLD_ARRAYS, Folding, fold
from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import FORWARD_FILE, MANIFEST_FILE, SOURCE_FILE, Manifest
from acclimate.export.backward.vjp import STATS, THETA
from acclimate.export.errors import ExportError
from acclimate.export.graph import Array, Graph, pruned
from acclimate.export.integer import BIAS, SCALE
from acclimate.export.onnx_format import evaluate, from_onnx, to_onnx

_CUTS = frozenset({"Split", "Slice", "Identity"})


def write_merged(bundle: Path, state: Path, out: Path) -> None:
    """Write the merged model of a session at `out`, or write nothing.

    Args:
        bundle: folder of the bundle that the session ran on.
        state: safetensors file with the session's parameters and statistics by name.
        out: the ONNX file; one that exists is replaced.

    Raises:
        ExportError: the bundle is damaged, or the state is not one of its sessions'.
    """
    manifest = _manifest(bundle)
    theta, stats = _rows(manifest, state)
    forward, source = (_file(bundle, manifest, name) for name in (FORWARD_FILE, SOURCE_FILE))
    content = merged(manifest, forward, source, theta, stats)
    _write(out, content)


def merged(manifest: Manifest, forward: bytes, source: bytes, theta: Float, stats: Float) -> bytes:
    """`forward.onnx` with what it takes of one session, made from `theta [P]` and `stats [Q]`, as constants.

    It returns the bits that the daemon answers for the session, for both run the same integer kernels on the
    same numbers (`docs/bundle-format.md`).

    Raises:
        ExportError: the graph takes something that no session has.
    """
    graph = from_onnx(onnx.load_from_string(forward))
    scale, bias = fold(_folding(manifest, load(source)), theta, stats)
    own: dict[str, Array] = {SCALE: scale, BIAS: bias, THETA: theta, STATS: stats}
    samples = {spec.name for spec in manifest.inputs}
    for name in [name for name in graph.inputs if name not in samples]:
        if name not in own:
            raise ExportError(f"bundle: {FORWARD_FILE} takes {name!r}, which no session has; export the bundle again")
        value = graph.inputs.pop(name)
        if value.shape != own[name].shape:
            raise ExportError(f"bundle: {FORWARD_FILE} takes {name!r} {list(value.shape)}; export the bundle again")
        graph.constants[name] = own[name]
    return to_onnx(_cut(graph), "adapted").SerializeToString()


def _cut(graph: Graph) -> Graph:
    """With the pieces that nodes would cut from constants as constants of their own, as engines like them."""
    result = graph.copy(())
    for node in graph.nodes:
        if node.op in _CUTS and all(name in result.constants for name in node.inputs):
            arrays = evaluate(node, [result.constants[name] for name in node.inputs])
            result.constants.update(zip(node.outputs, arrays, strict=True))
        else:
            result.nodes.append(node)
    return pruned(result)


def _folding(manifest: Manifest, arrays: Mapping[str, Array]) -> Folding:
    try:
        parts = {name: arrays[f"fold.{name}"] for name in FOLD_ARRAYS}
        return Folding.of(manifest.sites, manifest.parameters, manifest.statistics, parts)
    except (KeyError, LayoutError) as error:
        raise ExportError(
            f"bundle: {SOURCE_FILE} does not say how its sites fold ({error}); export it again"
        ) from error


def _manifest(bundle: Path) -> Manifest:
    try:
        return Manifest.from_json(json.loads((bundle / MANIFEST_FILE).read_text(encoding="utf-8")))
    except OSError as error:
        raise ExportError(f"bundle: {str(bundle)!r} has no readable {MANIFEST_FILE} ({error.strerror})") from error
    except (ValueError, ManifestError) as error:
        raise ExportError(f"bundle: {str(bundle / MANIFEST_FILE)!r}: {error}") from error


def _file(bundle: Path, manifest: Manifest, name: str) -> bytes:
    try:
        content = (bundle / name).read_bytes()
    except OSError as error:
        raise ExportError(f"bundle: {str(bundle / name)!r} cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != manifest.files[name].sha256:
        raise ExportError(f"bundle: {str(bundle / name)!r} was changed after export; export the bundle again")
    return content


def _rows(manifest: Manifest, state: Path) -> tuple[Float, Float]:
    """`theta [P]` and `stats [Q]` from a file of named tensors."""
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
    return theta, stats


def _write(out: Path, content: bytes) -> None:
    """Beside `out` first, then renamed into place."""
    try:
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}-", delete=False) as file:
            staged = Path(file.name)
            try:
                file.write(content)
                file.flush()
                staged.chmod(0o644)
                staged.replace(out)
            except BaseException:
                staged.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ExportError(f"out: {str(out)!r} cannot be written ({error.strerror})") from error
