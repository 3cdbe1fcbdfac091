"""Sequences of tensors, which torch writes for splits, become slices.

Requires: a graph from `onnx_format.from_onnx`. Ensures: no SplitToSequence into constant sizes is left whose parts
are taken at constant positions.
"""

from __future__ import annotations

import numpy as np

from acclimate.export.graph import Graph, Node


def without_sequences(graph: Graph) -> Graph:
    """Every part of a split is a Slice of its source."""
    result = graph.copy(())
    splits: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op == "SplitToSequence" and _sizes(node, graph) is not None:
            splits[node.output] = node
        elif node.op == "SequenceAt" and node.inputs[0] in splits and node.inputs[1] in graph.constants:
            result.nodes.append(_part(splits[node.inputs[0]], node, result))
        else:
            result.nodes.append(node)
    return result


def _sizes(split: Node, graph: Graph) -> np.ndarray | None:
    sizes = graph.constants.get(split.inputs[1]) if len(split.inputs) > 1 else None
    return sizes if sizes is not None and sizes.ndim <= 1 else None


def _part(split: Node, taken: Node, graph: Graph) -> Node:
    sizes, position = graph.constants[split.inputs[1]], int(graph.constants[taken.inputs[1]])
    # One size is that of every part but the last, which a Slice past the end cuts as well.
    ends = sizes * np.arange(1, position + 2) if sizes.ndim == 0 else np.cumsum(sizes)
    start = int(ends[position - 1]) if position else 0
    places = (start, int(ends[position]), int(split.attributes.get("axis", 0)))
    bounds = (graph.constant(np.array([place], np.int64)) for place in places)
    return Node("Slice", (split.inputs[0], *bounds), taken.outputs)
