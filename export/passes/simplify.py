"""Constants folded, no-ops dropped, and every view written as one Reshape with a constant target.

Requires: any graph from `onnx_format.from_onnx`. Ensures: no Constant, Identity, Dropout, Flatten, Squeeze or
Unsqueeze of an activation is left; slices of several axes are one Slice; global means are GlobalAveragePool; all-zero
convolution biases are gone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import helper

from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Array, Graph, Node, Value, pruned
from acclimate.export.onnx_format import evaluate

_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_NOTHING = frozenset({"Identity", "Dropout"})


def simplified(graph: Graph) -> Graph:
    """The canonical form that every later pass reads.

    Raises:
        UnsupportedModel: an activation whose first axis is not the batch, or with another unknown axis.
    """
    result = graph.copy(())
    alias: dict[str, str] = {}
    for original in graph.nodes:
        node = original.renamed(alias)
        folded = _folded(node, result)
        if folded is not None:
            result.constants.update(zip(node.outputs, folded, strict=False))
        elif node.output in result.outputs:
            result.nodes.append(node)
        elif (source := _passes_through(node, result)) is not None:
            alias[node.output] = source
        else:
            result.nodes.extend(_canonical(node, result))
    result = pruned(result)
    _check_shapes(result)
    return result


def _folded(node: Node, graph: Graph) -> list[Array] | None:
    """The node's value where it does not depend on the graph's inputs."""
    if node.op == "Constant":
        ((key, value),) = node.attributes.items()
        return [np.asarray(value, np.float32 if key.startswith("value_float") else None)]
    if node.op == "CastLike" and node.inputs[0] in graph.constants and node.inputs[1] in graph.values:
        return [graph.constants[node.inputs[0]].astype(graph.values[node.inputs[1]].dtype)]
    if node.op == "Shape" and node.inputs[0] in graph.values:
        shape = graph.values[node.inputs[0]].shape[node.attributes.get("start", 0) : node.attributes.get("end")]
        return None if BATCH in shape else [np.asarray(shape, np.int64)]
    if not all(name in graph.constants for name in node.inputs if name):
        return None
    return evaluate(node, [graph.constants[name] if name else None for name in node.inputs])


def _passes_through(node: Node, graph: Graph) -> str | None:
    """The tensor that a node merely repeats, if it does."""
    source = node.inputs[0] if node.inputs else ""
    if node.op in _NOTHING:
        return source
    if source not in graph.values or node.output not in graph.values:
        return None
    if node.op == "Cast" and graph.values[source].dtype == helper.tensor_dtype_to_np_dtype(node.attributes["to"]):
        return source
    same_shape = graph.values[source].shape == graph.values[node.output].shape
    if same_shape and node.op in _VIEWS:
        return source
    if same_shape and node.op in ("Add", "Sub") and not np.any(graph.constants.get(node.inputs[1], 1)):
        return source
    if same_shape and node.op == "Slice" and all(name in graph.constants for name in node.inputs[1:]):
        starts = graph.constants[node.inputs[1]]
        ends = graph.constants[node.inputs[2]]
        steps = graph.constants[node.inputs[4]] if len(node.inputs) > 4 else np.ones(1)
        # On the batch axis equal shapes say nothing; only "from 0 to the largest integer" is the whole.
        if (starts == 0).all() and (steps == 1).all() and (ends >= 2**31 - 1).all():
            return source
    return None


def _canonical(node: Node, graph: Graph) -> list[Node]:
    if node.op in _VIEWS and node.inputs[0] in graph.values:
        target = graph.constant(graph.values[node.output].shape, np.int64)
        return [Node("Reshape", (node.inputs[0], target), node.outputs)]
    if node.op == "ReduceMean" and _axes(node, graph) == [2, 3] and len(graph.shape(node.inputs[0])) == 4:
        return _global_pool(node, graph)
    if node.op == "Slice":
        return [_merged_slice(node, graph)]
    if node.op == "Conv" and len(node.inputs) == 3 and not np.any(graph.constants.get(node.inputs[2], 1)):
        return [replace(node, inputs=node.inputs[:2])]
    return [node]


def _merged_slice(node: Node, graph: Graph) -> Node:
    """One slice for two in a row over different axes: torch writes `x[:, :, ::2, ::2]` as one for each axis."""
    inner = next((n for n in graph.nodes if node.inputs[0] in n.outputs and n.op == "Slice"), None)
    if inner is None or len(inner.inputs) < 5 or len(node.inputs) < 5:
        return node
    names = zip(inner.inputs[1:], node.inputs[1:], strict=True)
    pairs = [(graph.constants.get(a), graph.constants.get(b)) for a, b in names]
    if any(a is None or b is None for a, b in pairs):
        return node
    parts = [np.concatenate([a, b]) for a, b in pairs if a is not None and b is not None]
    if len(set((parts[2] % len(graph.shape(node.output))).tolist())) < len(parts[2]):
        return node
    return Node("Slice", (inner.inputs[0], *(graph.constant(part) for part in parts)), node.outputs)


def _axes(node: Node, graph: Graph) -> list[int]:
    rank = len(graph.shape(node.inputs[0]))
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] in graph.constants:
        axes = graph.constants[node.inputs[1]].tolist()
    return sorted(axis % rank for axis in axes or [])


def _global_pool(node: Node, graph: Graph) -> list[Node]:
    source = node.inputs[0]
    if node.attributes.get("keepdims", 1):
        return [Node("GlobalAveragePool", (source,), node.outputs)]
    value = graph.values[source]
    pooled = graph.fresh("pooled")
    graph.values[pooled] = Value(value.dtype, (*value.shape[:2], 1, 1))
    target = graph.constant((BATCH, value.shape[1]), np.int64)
    return [Node("GlobalAveragePool", (source,), (pooled,)), Node("Reshape", (pooled, target), node.outputs)]


def _check_shapes(graph: Graph) -> None:
    for node in graph.nodes:
        for name in node.outputs:
            shape = graph.values[name].shape if name in graph.values else None
            if shape is None or not shape or shape[0] != BATCH or BATCH in shape[1:]:
                raise UnsupportedModel(
                    f"{node.op} {name!r} has shape {shape}: only the first axis may vary, and it must be the batch"
                )
