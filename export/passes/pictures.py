"""Batch norms over vectors or sequences become batch norms over pictures `[B, C, H, W]`.

Requires: a graph with measured shapes. Ensures: every BatchNormalization has a four-dimensional input whose first
axis is the batch. Rows that a model flattened into the batch (`[B, L, C]` as `[B * L, C]`) become pixels again, so
that a session's statistics are taken over its own samples.
"""

from __future__ import annotations

import numpy as np

from acclimate.export.graph import BATCH, Graph, Node, Value


def with_pictures(graph: Graph) -> Graph:
    """Reshape around the norms that need it."""
    result = graph.copy(())
    for node in graph.nodes:
        value = graph.values.get(node.inputs[0]) if node.op == "BatchNormalization" else None
        if value is None or len(value.shape) == 4:
            result.nodes.append(node)
        elif len(value.shape) == 3:
            _reshaped_around(node, (BATCH, *value.shape[1:], 1), value, result)
        else:
            _columns_around(node, value, result)
    return result


def _reshaped_around(node: Node, shape: tuple[int, ...], value: Value, graph: Graph) -> None:
    picture = _reshape(node.inputs[0], shape, value, graph)
    normal = graph.fresh("normal")
    graph.values[normal] = graph.values[picture]
    graph.nodes.append(Node(node.op, (picture, *node.inputs[1:]), (normal,), node.attributes))
    _reshape(normal, value.shape, value, graph, node.output)


def _columns_around(node: Node, value: Value, graph: Graph) -> None:
    """`[B * L, C]` as `[B, C, L, 1]` and back."""
    length, channels = value.rows, value.shape[1]
    if length == 1:
        _reshaped_around(node, (BATCH, channels, 1, 1), value, graph)
        return
    rows = _reshape(node.inputs[0], (BATCH, length, channels, 1), value, graph)
    picture, normal, turned = (graph.fresh(hint) for hint in ("picture", "normal", "rows"))
    graph.values[picture] = graph.values[normal] = Value(value.dtype, (BATCH, channels, length, 1))
    graph.values[turned] = graph.values[rows]
    graph.nodes.append(Node("Transpose", (rows,), (picture,), {"perm": [0, 2, 1, 3]}))
    graph.nodes.append(Node(node.op, (picture, *node.inputs[1:]), (normal,), node.attributes))
    graph.nodes.append(Node("Transpose", (normal,), (turned,), {"perm": [0, 2, 1, 3]}))
    _reshape(turned, value.shape, value, graph, node.output)


def _reshape(source: str, shape: tuple[int, ...], value: Value, graph: Graph, output: str = "") -> str:
    name = output or graph.fresh("picture")
    graph.values[name] = value if output else Value(value.dtype, shape)
    graph.nodes.append(Node("Reshape", (source, graph.constant(np.array(shape, np.int64))), (name,)))
    return name
