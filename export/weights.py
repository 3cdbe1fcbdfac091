"""Frozen weights in eight bits: symmetric, one scale per output channel, shared by every graph of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Graph, Node

_LIMIT = 127


@dataclass(frozen=True)
class QuantizedWeight:
    """`values` int8 in [-127, 127] with output channels first (`axis` 0) or last, and their scales `[channels]`."""

    values: NDArray[np.int8]
    scale: Float
    axis: int

    def dequantized(self) -> Float:
        """The float32 weights that the integers stand for."""
        return (self.values.astype(np.float32) * self.broadcast_scale()).astype(np.float32)

    def broadcast_scale(self) -> Float:
        """Scales shaped to multiply `values`."""
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape)


def quantized_weights(graph: Graph) -> dict[str, QuantizedWeight]:
    """Quantize the matrices and kernels of Conv, Gemm and MatMul, by constant name.

    Raises:
        UnsupportedModel: a weight is not finite.
    """
    result: dict[str, QuantizedWeight] = {}
    for node in graph.nodes:
        axis = _output_axis(node)
        if axis is None or node.inputs[1] not in graph.constants:
            continue
        if node.op == "MatMul" and graph.constants[node.inputs[1]].ndim != 2:
            continue
        result[node.inputs[1]] = _quantized(node.inputs[1], graph.constants[node.inputs[1]], axis)
    return result


def _output_axis(node: Node) -> int | None:
    if node.op == "Conv" or (node.op == "Gemm" and node.attributes.get("transB", 0)):
        return 0
    return 1 if node.op in ("Gemm", "MatMul") else None


def _quantized(name: str, weight: NDArray[np.float32], axis: int) -> QuantizedWeight:
    axis %= weight.ndim
    largest = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    if not np.isfinite(largest).all():
        raise UnsupportedModel(f"weight {name!r} is not finite; the checkpoint is damaged")
    # A channel of zeros gets scale 1, so that nothing divides by zero.
    scale = np.where(largest > 0, largest / _LIMIT, 1.0).astype(np.float32)
    shape = [1] * weight.ndim
    shape[axis] = -1
    values = np.clip(np.rint(weight / scale.reshape(shape)), -_LIMIT, _LIMIT).astype(np.int8)
    return QuantizedWeight(values, scale, axis)


def integer_constants(graph: Graph, name: str, weight: QuantizedWeight) -> tuple[str, str]:
    """A weight's integers and their zero points, as constants of one node alone.

    Where the processor would add products in 16 bits, ONNX Runtime turns each node's int8 weights into uint8 when it
    loads the graph (`session.x64quantprecision`), and refuses to do it twice to one constant. A layer that is used
    twice is written twice.
    """
    number, values = 2, f"{name}.int8"
    while values in graph.constants:
        values, number = f"{name}.int8.{number}", number + 1
    zeros = np.zeros(len(weight.scale), np.int8)
    return graph.constant(weight.values, name=values), graph.constant(zeros, name=graph.fresh("zeros"))


def rounded(graph: Graph, weights: Mapping[str, QuantizedWeight]) -> Graph:
    """The float graph with every weight replaced by what its integers stand for."""
    result = graph.copy()
    result.constants |= {name: weight.dequantized() for name, weight in weights.items()}
    return result


def stored_in_int8(graph: Graph, weights: Mapping[str, QuantizedWeight]) -> Graph:
    """Keep the integers in the file and dequantize them inside the graph.

    Cast and Mul rather than DequantizeLinear: ONNX Runtime folds the former when it loads the graph, and by
    default leaves the latter in place for fusions that never come here, to run on every call.
    """
    result, head = graph.copy(), graph.copy(())
    for name in sorted(set(weights) & set(result.constants)):
        weight = weights[name]
        del result.constants[name]
        values = result.constant(weight.values, name=f"{name}.int8")
        scale = result.constant(weight.broadcast_scale(), name=f"{name}.scale")
        head.nodes.append(Node("Cast", (values,), (f"{name}.float",), {"to": 1}))
        head.nodes.append(Node("Mul", (f"{name}.float", scale), (name,)))
    result.nodes = head.nodes + result.nodes
    return result
