"""Shapes as ONNX Runtime finds them, where symbolic inference gave up.

A batch of two and one of three are run through the graph: sizes that stay are constants, sizes that grow as the
batch does are the batch, or samples and another axis in one (windows of an attention, for instance).
"""

from __future__ import annotations

import numpy as np

from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Graph, Value
from acclimate.export.onnx_format import to_onnx
from acclimate.export.session import run, session

_SIZES = (2, 3)


def with_measured_shapes(graph: Graph) -> Graph:
    """The same graph with an exact `Value` for every tensor of every node.

    Raises:
        UnsupportedModel: a size depends on the batch in another way than by a factor.
    """
    proto = to_onnx(graph)
    known = {output.name for output in proto.graph.output}
    for name in (name for node in graph.nodes for name in node.outputs if name and name not in known):
        proto.graph.output.add().name = name
    running = session(proto.SerializeToString())
    found = []
    for size in _SIZES:
        feeds = {name: np.ones((size, *value.shape[1:]), value.dtype) for name, value in graph.inputs.items()}
        found.append(run(running, feeds))
    result = graph.copy()
    for name, small in found[0].items():
        if not isinstance(small, np.ndarray):
            raise UnsupportedModel(f"{name!r} is a sequence of tensors, which is not supported")
        pairs = zip(small.shape, found[1][name].shape, strict=True)
        sizes = [_size(a, b, name) for a, b in pairs]
        rows = sizes[0][1] if sizes and sizes[0][0] == BATCH else 1
        result.values[name] = Value(small.dtype, tuple(size for size, _ in sizes), rows)
    result.outputs = {name: result.values[name] for name in graph.outputs}
    return result


def _size(small: int, large: int, name: str) -> tuple[int, int]:
    """The size, -1 for the batch, and how many of it one sample has."""
    if small == large:
        return small, 1
    if small * _SIZES[1] != large * _SIZES[0]:
        raise UnsupportedModel(f"{name!r} has a size of {small} for two samples and of {large} for three")
    return BATCH, small // _SIZES[0]
