"""Graphs whose products and elementwise work run in float16 or bfloat16, for GPUs; inputs and outputs stay float32.

As in mixed-precision training (Micikevicius et al. 2018, arXiv 1710.03740) what sums many terms or spans many orders
of magnitude stays in float32: reductions, normalisation, exponentials, and everything computed from `theta`, `stats`,
`mix` and `alpha` alone. Their loss scaling is exact here because the product is linear in the cotangent: it is divided
by its largest magnitude first, and the gradient multiplied by it at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from acclimate.export.backward.vjp import COTANGENT, GRAD_THETA
from acclimate.export.features import COTANGENT_FEATURES
from acclimate.export.graph import Graph, Node
from acclimate.export.onnx_format import to_onnx

_FLOAT = int(onnx.TensorProto.FLOAT)
PRECISIONS = {"fp16": int(onnx.TensorProto.FLOAT16), "bf16": int(onnx.TensorProto.BFLOAT16)}
"""ONNX element types by the names that files and options use."""

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Sum", "Relu", "LeakyRelu", "Clip", "Min", "Max", "Neg", "Abs", "Where"})
_MOVES = frozenset(
    {"Reshape", "Transpose", "Slice", "Pad", "Concat", "Split", "Expand", "Gather", "Squeeze", "Unsqueeze", "Identity"}
)
_POOLS = frozenset({"MaxPool", "AveragePool"})
_HALF = {
    "fp16": _PRODUCTS | _ELEMENTWISE | _MOVES | _POOLS,
    # ONNX has no bfloat16 convolutions and pools before opset 22, and ONNX Runtime's CUDA provider none at all.
    "bf16": (_PRODUCTS - {"Conv", "ConvTranspose"}) | _ELEMENTWISE | _MOVES,
}
_SELECTIONS = _MOVES | _POOLS | {"Relu", "LeakyRelu", "Clip", "Min", "Max", "Neg", "Abs", "Where"}
_REDUCES = ("Reduce", "GlobalAveragePool")
_LEAST = 1e-30


@dataclass(frozen=True)
class _Conversion:
    """The graph being written; `halves` have a half form, `singles` a float32 one, and some both."""

    graph: Graph
    element: int
    floats: frozenset[str]
    emulated: bool
    halves: set[str] = field(default_factory=set)
    singles: set[str] = field(default_factory=set)

    def half(self, name: str) -> str:
        """The tensor in half precision."""
        if name not in self.halves:
            self.halves.add(name)
            self._round(name, _half_name(name))
        return _half_name(name)

    def single(self, name: str) -> str:
        """The tensor in float32."""
        if name not in self.singles:
            self.singles.add(name)
            op, attributes = ("Identity", {}) if self.emulated else ("Cast", {"to": _FLOAT})
            self.graph.nodes.append(Node(op, (_half_name(name),), (name,), attributes))
        return name

    def _round(self, source: str, target: str) -> None:
        rounded = f"{target}.bits" if self.emulated else target
        self.graph.nodes.append(Node("Cast", (source,), (rounded,), {"to": self.element}))
        if self.emulated:
            self.graph.nodes.append(Node("Cast", (rounded,), (target,), {"to": _FLOAT}))

    def put_half(self, node: Node) -> None:
        """The node with half inputs and outputs."""
        inputs = tuple(self.half(name) if name in self.floats else name for name in node.inputs)
        names = {name: _half_name(name) for name in node.outputs if name in self.floats}
        self.halves.update(names)
        made = {name: f"{half}.exact" if self.emulated else half for name, half in names.items()}
        outputs = tuple(made.get(name, name) for name in node.outputs)
        self.graph.nodes.append(Node(node.op, inputs, outputs, node.attributes, node.domain))
        for name in names if self.emulated else ():
            self._round(made[name], names[name])

    def put_single(self, node: Node) -> None:
        """The node as it is."""
        for name in node.inputs:
            if name in self.floats:
                self.single(name)
        self.singles.update(node.outputs)
        self.graph.nodes.append(node)


def in_precision(graph: Graph, precision: str, *, emulated: bool = False) -> Graph:
    """The same function in `fp16` or `bf16`.

    `emulated` returns a graph that runs in float32 everywhere and rounds every result that would be a half to one:
    for machines whose ONNX Runtime has no bfloat16 kernels.
    """
    graph = _scaled(graph) if GRAD_THETA in graph.outputs else graph
    to = _Conversion(graph.copy(()), PRECISIONS[precision], _floats(graph), emulated)
    to.singles.update(graph.inputs, graph.constants)
    weights = {name for name, array in graph.constants.items() if array.ndim > 1}
    exact = _reduced(graph.nodes) | _compared(graph.nodes)
    for node in graph.nodes:
        if node.inputs and graph.constants.keys() >= set(node.inputs) - weights - {""}:
            # A kernel turned round, say: folded when the graph is loaded, and as good as a weight.
            weights.update(node.outputs)
        held = [name for name in node.inputs if name in to.floats and name not in graph.constants]
        seeded = node.op in _PRODUCTS and bool(weights & set(node.inputs))
        computed = node.op in _HALF[precision] and node.output in to.floats and node.output not in exact
        if computed and (seeded or any(name not in to.singles for name in held)):
            to.put_half(node)
        else:
            to.put_single(node)
    for name in graph.outputs:
        to.single(name)
    return to.graph


def _half_name(name: str) -> str:
    return f"{name}.half"


def _reduced(nodes: Sequence[Node]) -> frozenset[str]:
    """Products that only reductions read: squares, which would overflow, and terms of dot products."""
    readers: dict[str, list[str]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node.op)
    return frozenset(
        node.output
        for node in nodes
        if node.op == "Mul" and readers.get(node.output) and all(op.startswith(_REDUCES) for op in readers[node.output])
    )


def _compared(nodes: Sequence[Node]) -> frozenset[str]:
    """Values that were selected from others and are looked for among them: gradients of clips and of maxima.

    A half and the float32 that a provider kept of the same number are not equal.
    """
    needed = {name for node in nodes if node.op == "Equal" for name in node.inputs}
    found = set[str]()
    for node in reversed(nodes):
        if node.op in _SELECTIONS and needed.intersection(node.outputs):
            needed.update(node.inputs)
            found.update(node.outputs)
    return frozenset(found)


def _floats(graph: Graph) -> frozenset[str]:
    """Names of all float32 tensors."""
    inferred = onnx.shape_inference.infer_shapes(to_onnx(graph)).graph
    kinds: Mapping[str, int] = {
        info.name: info.type.tensor_type.elem_type for info in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    constants = {name for name, array in graph.constants.items() if array.dtype == np.float32}
    return frozenset({name for name, kind in kinds.items() if kind == _FLOAT} | constants)


def _scaled(graph: Graph) -> Graph:
    """Differentiate for `cotangent / m`, m its largest magnitude, and multiply the gradient by m."""
    cotangents = [name for name in (COTANGENT, COTANGENT_FEATURES) if name in graph.inputs]
    result = graph.copy(())
    largest = [
        result.add("ReduceMax", (result.add("Abs", (name,), name=f"{name}.abs"),), name=f"{name}.largest", keepdims=0)
        for name in cotangents
    ]
    result.add("Max", (*largest, result.constant(_LEAST, np.float32)), name="cotangent.magnitude")
    for name in cotangents:
        result.add("Div", (name, "cotangent.magnitude"), name=f"{name}.scaled")
    names = {name: f"{name}.scaled" for name in cotangents}
    for node in graph.nodes:
        outputs = tuple("grad_theta.scaled" if name == GRAD_THETA else name for name in node.outputs)
        result.nodes.append(Node(node.op, node.renamed(names).inputs, outputs, node.attributes, node.domain))
    result.add("Mul", ("grad_theta.scaled", "cotangent.magnitude"), name=GRAD_THETA)
    return result
