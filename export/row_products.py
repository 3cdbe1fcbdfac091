"""Integer products whose activations get a scale per row: a token's own largest value, measured when it is served.

One calibrated scale per tensor does not fit a trained transformer: a few channels of a few tokens are a hundred times
the others (Dettmers et al. 2022, arXiv 2208.07339). A scale that rests on nothing but the row it scales leaves the
samples of a batch independent of each other, which one measured over the tensor would not.
"""

from __future__ import annotations

import numpy as np

from acclimate.export.emission import Emission
from acclimate.export.onnx_format import CONTRIB
from acclimate.export.weights import integer_constants

_ZERO = 128
_LEVELS = 127
# Keeps a row of zeros from being divided by zero.
_LEAST = 1e-30


def row_product(tensor: str, weight: str, output: str, to: Emission) -> None:
    """Write `output = tensor @ weight` for a float32 activation `[..., K]` and a frozen matrix `[K, N]`.

    The matrix is held as `[N, K]` where its `axis` is 0.

    A row x becomes `round(127 x / max|x|) + 128` in uint8, and its integer products are scaled by `max|x| / 127` and
    the scale of the weight's column.
    """
    graph, held = to.graph, to.weights[weight]
    integers, largest = _rows(tensor, to)
    values, zeros = integer_constants(graph, weight, held)
    if held.axis == 0:
        # ONNX Runtime does this once, when it loads the graph; the other graphs read the same bytes as they are.
        values = graph.add("Transpose", (values,), perm=[1, 0])
    scale = graph.constant(held.scale, name=f"{weight}.scale")
    step, zero = _step(to)
    inputs = (integers, values, step, scale, zero, zeros)
    product = graph.add("MatMulIntegerToFloat", inputs, name=f"{output}.unscaled", domain=CONTRIB)
    graph.add("Mul", (product, largest), name=output)


def _rows(tensor: str, to: Emission) -> tuple[str, str]:
    """The integers of a tensor's rows and the rows' largest magnitudes `[..., 1]`, written once for all readers."""
    integers, largest = f"{tensor}.rows", f"{tensor}.largest"
    if tensor not in to.rows:
        graph, real = to.graph, to.real(tensor)
        axis = graph.constant(np.array([-1], np.int64))
        most = graph.add("ReduceMax", (graph.add("Abs", (real,)), axis), keepdims=1)
        graph.add("Max", (most, graph.constant(_LEAST, np.float32)), name=largest)
        graph.add("QuantizeLinear", (graph.add("Div", (real, largest)), *_step(to)), name=integers)
        to.rows.add(tensor)
    return integers, largest


def _step(to: Emission) -> tuple[str, str]:
    return to.graph.constant(1 / _LEVELS, np.float32), to.graph.constant(_ZERO, np.uint8)
