"""Single operators in the form that later passes and backward rules know; used by `simplify.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from acclimate.export.graph import BATCH, Graph, Node, Value


def _split(node: Node, graph: Graph) -> list[Node]:
    """One slice for each part."""
    axis = int(node.attributes.get("axis", 0)) % len(graph.shape(node.inputs[0]))
    parts, start = list[Node](), 0
    for name in node.outputs:
        end = start + graph.shape(name)[axis]
        bounds = (graph.constant(np.array([place], np.int64)) for place in (start, end, axis))
        parts.append(Node("Slice", (node.inputs[0], *bounds), (name,)))
        start = end
    return parts


def _selected(node: Node, graph: Graph) -> list[Node]:
    """`x[:, i]` as a slice and a reshape."""
    index, source = graph.constants.get(node.inputs[1]), graph.values[node.inputs[0]]
    axis = int(node.attributes.get("axis", 0)) % len(source.shape)
    if index is None or index.ndim or source.shape[axis] == BATCH:
        return [node]
    start = int(index) % source.shape[axis]
    taken = graph.fresh("selected")
    graph.values[taken] = Value(source.dtype, (*source.shape[:axis], 1, *source.shape[axis + 1 :]))
    bounds = (graph.constant(np.array([place], np.int64)) for place in (start, start + 1, axis))
    target = graph.constant(graph.shape(node.output), np.int64)
    return [Node("Slice", (node.inputs[0], *bounds), (taken,)), Node("Reshape", (taken, target), node.outputs)]


def _expanded(node: Node, graph: Graph) -> list[Node]:
    """A constant target, with 1 for the batch, where the source has the batch already."""
    shape = graph.shape(node.output)
    if graph.shape(node.inputs[0])[:1] != (BATCH,) or len(graph.shape(node.inputs[0])) != len(shape):
        return [node]
    return [Node("Expand", (node.inputs[0], graph.constant((1, *shape[1:]), np.int64)), node.outputs)]


def _power(node: Node, graph: Graph) -> list[Node]:
    exponent = graph.constants.get(node.inputs[1])
    if exponent is not None and exponent.size == 1 and float(exponent.item()) == 2.0:
        return [Node("Mul", (node.inputs[0], node.inputs[0]), node.outputs)]
    return [node]


def _whole_pool(node: Node, graph: Graph) -> list[Node]:
    """One window over the whole picture, however much larger it is (as transformers' EfficientNet has it)."""
    _, _, *sizes = graph.shape(node.inputs[0])
    kernel = node.attributes["kernel_shape"]
    covers = all(k >= size for k, size in zip(kernel, sizes, strict=True)) and not any(node.attributes.get("pads", []))
    if covers and all(size == 1 for size in graph.shape(node.output)[2:]):
        return [Node("GlobalAveragePool", node.inputs[:1], node.outputs)]
    return [node]


def _pooled_padding(node: Node, graph: Graph) -> list[Node]:
    """Zeros before MaxPool that stay zeros, written as the smallest number.

    ONNX Runtime 1.31 (`pad_fusion.cc`) merges a Pad by zero into the pool, whose own padding is minus infinity: wrong
    wherever a window at the edge has negative numbers only.
    """
    pad = next((other for other in graph.nodes if node.inputs[0] in other.outputs), None)
    if pad is None or pad.op != "Pad" or pad.attributes.get("mode", "constant") != "constant":
        return [node]
    value = graph.constants.get(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] else np.zeros(())
    if value is None or np.any(value):
        return [node]
    padded = graph.fresh("padded")
    graph.values[padded] = graph.values[node.inputs[0]]
    tiny = graph.constant(float(np.finfo(np.float32).tiny), np.float32)
    again = Node("Pad", (*pad.inputs[:2], tiny, *pad.inputs[3:]), (padded,), pad.attributes)
    return [again, Node(node.op, (padded,), node.outputs, node.attributes)]


REWRITES: dict[str, Callable[[Node, Graph], list[Node]]] = {
    "AveragePool": _whole_pool,
    "Split": _split,
    "Gather": _selected,
    "MaxPool": _pooled_padding,
    "Expand": _expanded,
    "Pow": _power,
}
