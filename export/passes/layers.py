"""The layers whose weights are constants of the graph: linear ones and convolutions, by their module's name."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.export.graph import Graph, Node
from acclimate.export.passes.simplify import VIEW

WEIGHT = ".weight"


@dataclass(frozen=True)
class Layer:
    """A Conv, Gemm or MatMul by a constant.

    Attributes:
        name: the module's path, which is the weight's name without `.weight`.
        weight: the weight's name in the model.
        shape: of the weight as PEFT sees it, `[out, in]` or `[out, in / groups, kh, kw]`.
        transposed: the model keeps it as `[in, out]`.
        groups: of a convolution; 1 for others.
    """

    node: Node
    name: str
    weight: str
    shape: tuple[int, ...]
    transposed: bool
    groups: int


def layer(node: Node, graph: Graph) -> Layer | None:
    """The layer that a node computes, if it is one that this exporter can adapt."""
    if len(node.inputs) < 2 or node.inputs[1] not in graph.constants or node.inputs[0] not in graph.values:
        return None
    constant = node.inputs[1]
    name = constant.partition(VIEW)[0]
    shape = graph.constants[constant].shape
    if node.op == "Conv" and len(shape) == 4:
        groups = int(node.attributes.get("group", 1))
        return Layer(node, name.removesuffix(WEIGHT), name, shape, transposed=False, groups=groups)
    plain = all(float(node.attributes.get(key, 1.0)) == 1.0 for key in ("alpha", "beta"))
    if len(shape) != 2 or node.op not in ("Gemm", "MatMul") or node.attributes.get("transA", 0) or not plain:
        return None
    stored_by_outputs = bool(node.attributes.get("transB", 0))
    viewed = constant != name
    if viewed and (stored_by_outputs or constant != f"{name}{VIEW}T"):
        # Reshaped on its way: which of its axes the module calls inputs is not known any more.
        return None
    turned = shape if stored_by_outputs else shape[::-1]
    return Layer(node, name.removesuffix(WEIGHT), name, turned, not (stored_by_outputs or viewed), 1)
