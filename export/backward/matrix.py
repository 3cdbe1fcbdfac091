"""Gradients of matrix products with a frozen matrix on the right."""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Node


def gemm(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Gemm `alpha A B + beta C`: `alpha g B^T`."""
    if node.attributes.get("transA", 0) or any(tape.wants(node, i) for i in (1, 2)):
        raise UnsupportedModel(f"Gemm {node.output!r}: only the left matrix, untransposed, may depend on theta")
    transposed = 1 - int(node.attributes.get("transB", 0))
    alpha = float(node.attributes.get("alpha", 1.0))
    return {0: tape.add("Gemm", grad, node.inputs[1], transB=transposed, alpha=alpha)}


def matmul(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """MatMul by a frozen `[n, k]` matrix: times its transpose."""
    if tape.wants(node, 1) or len(tape.shape(node.inputs[1])) != 2:
        raise UnsupportedModel(f"MatMul {node.output!r}: the right side must be a frozen matrix")
    return {0: tape.add("MatMul", grad, tape.add("Transpose", node.inputs[1], perm=[1, 0]))}
