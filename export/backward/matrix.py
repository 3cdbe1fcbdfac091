"""Gradients of matrix products."""

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
    """MatMul `A B` over stacks of matrices: `g B^T` and `A^T g`, summed where a side was broadcast."""
    shapes = [tape.shape(name) for name in node.inputs]
    if min(map(len, shapes)) < 2:
        raise UnsupportedModel(f"MatMul {node.output!r}: products with vectors are not supported")
    (*_, m, k), n = shapes[0], shapes[1][-1]
    stack = tape.shape(node.output)[:-2]
    grads = {}
    if tape.wants(node, 0):
        whole = tape.add("MatMul", grad, _transposed(node.inputs[1], tape))
        grads[0] = tape.summed_to(whole, shapes[0], (*stack, m, k))
    if tape.wants(node, 1):
        whole = tape.add("MatMul", _transposed(node.inputs[0], tape), grad)
        grads[1] = tape.summed_to(whole, shapes[1], (*stack, k, n))
    return grads


def _transposed(name: str, tape: Tape) -> str:
    rank = len(tape.shape(name))
    return tape.add("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])
