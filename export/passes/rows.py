"""Low-rank updates and biases in plain operators, with parameters that differ from row to row.

Requires: a graph of `sites.py`. Ensures: no `LowRank` and no `Bias` node; what they compute reads `Parameter` nodes, so
that reverse mode needs no rules for them.

A convolution's weights cannot differ from row to row. Its `rank` filters are applied as a batched product with the
pixels, which gives one map for each filter and tap, and a depthwise convolution that shifts each map by its tap;
the sum over taps is the filter's answer. Patches of the input first and one product after that is the other order,
and took three to four times as long (`[16, 64, 14, 14]`, rank 8: 1.9 ms against 0.5), for there are more
channels than ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from acclimate.export.graph import BATCH, Graph, Node, Value
from acclimate.export.passes.affines import PARAMETER
from acclimate.export.passes.biases import BIAS_SITE
from acclimate.export.passes.low_rank import LOW_RANK

_SINGLE = np.dtype(np.float32)


@dataclass(frozen=True)
class _Writer:
    """The graph being written, and the shapes of the slices that are read, by the tensor that holds them."""

    graph: Graph
    made: dict[str, str]

    def add(self, op: str, inputs: Sequence[str], shape: Sequence[int], name: str = "", **attributes: Any) -> str:
        """A node with one float output of a known shape."""
        output = name or self.graph.fresh("row")
        self.graph.values[output] = Value(_SINGLE, tuple(shape))
        self.graph.nodes.append(Node(op, tuple(inputs), (output,), attributes))
        return output

    def reshape(self, source: str, shape: Sequence[int], name: str = "") -> str:
        """The same numbers in another shape; the first axis is the batch."""
        if not name and self.graph.shape(source) == tuple(shape):
            return source
        return self.add("Reshape", (source, self.graph.constant(np.array(shape, np.int64))), shape, name)

    def turned(self, source: str, permutation: Sequence[int]) -> str:
        """A transpose."""
        shape = self.graph.shape(source)
        return self.add("Transpose", (source,), [shape[i] for i in permutation], perm=list(permutation))

    def parameter(self, slice_name: str, view: Sequence[int]) -> str:
        """A slice of theta `[B, *view]`; one node for each slice, so that its gradient is one sum."""
        if slice_name not in self.made:
            self.made[slice_name] = self.add(PARAMETER, (), (BATCH, *view), slice=slice_name, view=list(view))
        return self.made[slice_name]


def in_rows(graph: Graph) -> Graph:
    """Every update and bias as operators over rows."""
    to = _Writer(graph.copy(()), {})
    for node in graph.nodes:
        if node.op == LOW_RANK:
            (_convolution if "conv" in node.attributes else _linear)(node, to)
        elif node.op == BIAS_SITE:
            _bias(node, to)
        else:
            to.graph.nodes.append(node)
    return to.graph


def _linear(node: Node, to: _Writer) -> None:
    """`x A^T B^T` for each row's `[tokens, in]`."""
    base, x = node.inputs
    value, into = to.graph.values[x], to.graph.shape(x)[-1]
    out, rank = to.graph.shape(base)[-1], node.attributes["rank"]
    tokens = value.rows * math.prod(value.shape[1:-1])
    a, b = to.parameter(node.attributes["a"], (rank, into)), _scaled_b(node, (out, rank), to)
    if tokens == 1:
        column = to.add("MatMul", (a, to.reshape(x, (BATCH, into, 1))), (BATCH, rank, 1))
        update = to.add("MatMul", (b, column), (BATCH, out, 1))
    else:
        rows = to.reshape(x, (BATCH, tokens, into))
        narrow = to.add("MatMul", (rows, to.turned(a, (0, 2, 1))), (BATCH, tokens, rank))
        update = to.add("MatMul", (narrow, to.turned(b, (0, 2, 1))), (BATCH, tokens, out))
    _sum(node, update, to)


def _convolution(node: Node, to: _Writer) -> None:
    """Filters as taps, their sum, and the one by one behind them."""
    base, x = node.inputs
    _, channels, *size = to.graph.shape(x)
    _, out, *answer = to.graph.shape(base)
    rank, kernel = node.attributes["rank"], node.attributes["kernel"]
    taps, pixels = math.prod(kernel), math.prod(answer)
    a = to.parameter(node.attributes["a"], (rank, channels, taps))
    by_tap = to.reshape(to.turned(a, (0, 1, 3, 2)), (BATCH, rank * taps, channels))
    flat = to.reshape(x, (BATCH, channels, math.prod(size)))
    maps = to.add("MatMul", (by_tap, flat), (BATCH, rank * taps, math.prod(size)))
    shifted = to.add(
        "Conv",
        (to.reshape(maps, (BATCH, rank * taps, *size)), _shifts(rank, kernel, to)),
        (BATCH, rank * taps, *answer),
        **{**node.attributes["conv"], "group": rank * taps},
    )
    parts = to.reshape(shifted, (BATCH, rank, taps, pixels))
    axis = to.graph.constant(np.array([2], np.int64))
    narrow = to.add("ReduceSum", (parts, axis), (BATCH, rank, pixels), keepdims=0)
    update = to.add("MatMul", (_scaled_b(node, (out, rank), to), narrow), (BATCH, out, pixels))
    _sum(node, update, to)


def _shifts(rank: int, kernel: Sequence[int], to: _Writer) -> str:
    """`[rank * taps, 1, kh, kw]`: the kernel of a map is one at the map's own tap."""
    taps = math.prod(kernel)
    one = np.tile(np.eye(taps, dtype=np.float32), (rank, 1)).reshape(rank * taps, 1, *kernel)
    return to.graph.constant(one, name=f"shifts.{rank}.{'x'.join(map(str, kernel))}")


def _scaled_b(node: Node, shape: tuple[int, int], to: _Writer) -> str:
    """B times `alpha / rank` and, where a frozen norm was folded, its gain: the smallest tensor to multiply."""
    b = to.parameter(node.attributes["b"], shape)
    factor = np.asarray(node.attributes["factor"], np.float32)
    if np.all(factor == 1):
        return b
    by = to.graph.constant(factor.reshape(-1, 1) if factor.ndim else factor)
    return to.add("Mul", (b, by), (BATCH, *shape))


def _sum(node: Node, update: str, to: _Writer) -> None:
    base = node.inputs[0]
    shape = to.graph.shape(base)
    to.graph.nodes.append(Node("Add", (base, to.reshape(update, shape)), node.outputs))


def _bias(node: Node, to: _Writer) -> None:
    base, view = node.inputs[0], node.attributes["view"]
    value = to.graph.values[base]
    if value.rows == 1:
        to.graph.nodes.append(Node("Add", (base, to.parameter(node.attributes["slice"], view)), node.outputs))
        return
    # Windows or patches of a sample share its row.
    wide = (BATCH, value.rows, *value.shape[1:])
    parameter = to.parameter(node.attributes["slice"], [1, *view])
    added = to.add("Add", (to.reshape(base, wide), parameter), wide)
    to.graph.nodes.append(Node("Reshape", (added, to.graph.constant(value.shape, np.int64)), node.outputs))
