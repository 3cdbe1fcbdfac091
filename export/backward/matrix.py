"""Gradients of matrix products."""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Node


def gemm(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Gemm `alpha A B + beta C` with A, B transposed or not: `alpha g B^T`, `alpha A^T g`, and `beta g` summed."""
    left, right = node.inputs[:2]
    turned = [int(node.attributes.get(key, 0)) for key in ("transA", "transB")]
    alpha, beta = (float(node.attributes.get(key, 1.0)) for key in ("alpha", "beta"))
    grads = {}
    if tape.wants(node, 0) and turned[0]:
        grads[0] = tape.add("Gemm", right, grad, transA=turned[1], transB=1, alpha=alpha)
    elif tape.wants(node, 0):
        grads[0] = tape.add("Gemm", grad, right, transB=1 - turned[1], alpha=alpha)
    if tape.wants(node, 1) and turned[1]:
        grads[1] = tape.add("Gemm", grad, left, transA=1, transB=turned[0], alpha=alpha)
    elif tape.wants(node, 1):
        grads[1] = tape.add("Gemm", left, grad, transA=1 - turned[0], alpha=alpha)
    if tape.wants(node, 2):
        share = grad if beta == 1 else tape.add("Mul", grad, tape.number(beta))
        grads[2] = tape.summed_to(share, tape.shape(node.inputs[2]), tape.shape(node.output))
    return grads


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
