"""An adapted session taken out: the bundle's int8 model with the session's parameters inside, as plain ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from acclimate.adapters.manifest import SOURCE_FILE
from acclimate.export.graph import Array, Graph, pruned
from acclimate.export.onnx_format import evaluate, from_onnx, to_onnx
from acclimate.export.session_state import read_file, read_forward, read_manifest, read_state, taken
from acclimate.export.staging import staged

# What a session's vectors pass on their way to the layers; all other nodes over constants stay as the engine has them.
_CUTS = frozenset({"Cast", "Clip", "Div", "Identity", "Mul", "Reshape", "Round", "Slice", "Split", "Transpose"})


def write_merged(bundle: Path, state: Path, out: Path) -> None:
    """Write the merged model of a session at `out`, or write nothing.

    Args:
        bundle: folder of the bundle that the session ran on.
        state: safetensors file with the session's parameters and statistics by name.
        out: the ONNX file; one that exists is replaced.

    Raises:
        ExportError: the bundle is damaged, or the state is not one of its sessions'.
    """
    manifest = read_manifest(bundle)
    session = read_state(manifest, state)
    forward, source = read_forward(bundle, manifest), read_file(bundle, manifest, SOURCE_FILE)
    content = merged(forward, taken(manifest, forward, source, session.theta, session.stats))
    with staged(out) as path:
        path.write_bytes(content)


def merged(forward: onnx.ModelProto, own: Mapping[str, Array]) -> bytes:
    """`forward.onnx` with what it takes of one session as constants.

    It returns the bits that the daemon answers for the session, for both run the same integer kernels on the
    same numbers (`docs/bundle-format.md`).
    """
    graph = from_onnx(forward)
    for name, values in own.items():
        del graph.inputs[name]
        graph.constants[name] = values
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
