"""Constants folded, no-ops dropped, and every view written as one Reshape with a constant target.

Requires: any graph from `onnx_format.from_onnx`. Ensures: no Constant, Identity, Dropout, Flatten, Squeeze or
Unsqueeze of an activation is left; slices of several axes are one Slice; splits and selections are slices; global
means are GlobalAveragePool; squares are products; all-zero convolution biases are gone. A constant that is another
one reshaped or transposed keeps that one's name in front of `VIEW`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import helper

from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Array, Graph, Node, Value, pruned
from acclimate.export.onnx_format import evaluate
from acclimate.export.passes.rewrites import REWRITES

VIEW = "@"
"""Ends the original's name in the name of a reshaped (`weight@8x1x1`) or transposed (`weight@T`) constant."""
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_SIZE_MOVERS = frozenset({"Concat", "Gather", "Reshape", "Slice", "Squeeze", "Unsqueeze"})
_NOTHING = frozenset({"Identity", "Dropout"})


def simplified(graph: Graph) -> Graph:
    """The canonical form that every later pass reads.

    Raises:
        UnsupportedModel: an activation whose first axis is not the batch, or with another unknown axis.
    """
    result = graph.copy(())
    alias: dict[str, str] = {}
    sizes: dict[str, Array] = {}
    for original in graph.nodes:
        node = original.renamed(alias)
        folded = _folded(node, result) or _known_sizes(node, result, sizes)
        if folded is not None:
            names = [_view_name(node, folded[0], result) or node.output, *node.outputs[1:]]
            alias |= dict(zip(node.outputs, names, strict=True))
            result.constants.update(zip(names, folded, strict=False))
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


def _known_sizes(node: Node, graph: Graph, sizes: dict[str, Array]) -> list[Array] | None:
    """The value of a tensor of sizes that holds no batch; `sizes` keeps those that do, with -1 for it."""
    if node.op == "Shape" and node.inputs[0] in graph.values:
        shape = graph.values[node.inputs[0]].shape[node.attributes.get("start", 0) : node.attributes.get("end")]
        sizes[node.output] = np.array(shape, np.int64)
        return None
    arrays = [sizes.get(name, graph.constants.get(name)) for name in node.inputs]
    if node.op not in _SIZE_MOVERS or node.inputs[0] not in sizes or any(array is None for array in arrays):
        return None
    (value,) = evaluate(node, arrays)
    if (value == BATCH).any():
        sizes[node.output] = value
        return None
    return [value]


def _view_name(node: Node, value: Array, graph: Graph) -> str | None:
    """How a folded view of a constant is called, so that later passes know what it shows."""
    if node.op in _VIEWS:
        return f"{node.inputs[0].partition(VIEW)[0]}{VIEW}{'x'.join(map(str, value.shape))}"
    if node.op in ("Cast", "CastLike") and graph.constants[node.inputs[0]].dtype == value.dtype:
        return node.inputs[0]
    if node.op == "Transpose" and value.ndim == 2 and VIEW not in node.inputs[0]:
        return f"{node.inputs[0]}{VIEW}T"
    return None


def _passes_through(node: Node, graph: Graph) -> str | None:
    """The tensor that a node merely repeats, if it does."""
    source = node.inputs[0] if node.inputs else ""
    if node.op in _NOTHING:
        return source
    if source not in graph.values or node.output not in graph.values:
        return None
    if node.op == "Cast" and graph.values[source].dtype == helper.tensor_dtype_to_np_dtype(node.attributes["to"]):
        return source
    if node.op == "CastLike" and graph.values[source].dtype == graph.values[node.output].dtype:
        return source
    same_shape = graph.values[source].shape == graph.values[node.output].shape
    if same_shape and node.op == "Expand":
        return source
    if same_shape and node.op in _VIEWS:
        return source
    if same_shape and node.op in ("Add", "Sub") and not np.any(graph.constants.get(node.inputs[1], 1)):
        # A module's bias is kept though it is zero yet: it may be a norm's, and adaptable.
        return None if node.inputs[1].partition(VIEW)[0].endswith(".bias") else source
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
    if node.op in REWRITES and node.inputs[0] in graph.values:
        return REWRITES[node.op](node, graph)
    if node.op == "Conv" and len(node.inputs) == 3 and not np.any(graph.constants.get(node.inputs[2], 1)):
        # A module's bias is kept though it is zero yet, for it may be adaptable.
        return [node if node.inputs[2].endswith(".bias") else replace(node, inputs=node.inputs[:2])]
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
            if name not in graph.values or graph.values[name].dtype.kind != "f":
                # Shapes and masks are computed as the model does it.
                continue
            shape = graph.values[name].shape
            if shape.count(BATCH) != 1:
                raise UnsupportedModel(f"{node.op} {name!r} has shape {shape}: one axis must vary, the batch")
