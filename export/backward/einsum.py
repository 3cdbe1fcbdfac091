"""Einsum of two operands: each one's gradient is another einsum."""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Node


def einsum(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """`ab,bc->ac` and the like, without ellipses, diagonals and letters that only one operand has."""
    operands, result = _letters(node)
    grads = {}
    for position, mine in enumerate(operands):
        if tape.wants(node, position):
            other = operands[1 - position]
            grads[position] = tape.add("Einsum", grad, node.inputs[1 - position], equation=f"{result},{other}->{mine}")
    return grads


def _letters(node: Node) -> tuple[tuple[str, str], str]:
    equation = str(node.attributes["equation"]).replace(" ", "")
    left, arrow, result = equation.partition("->")
    parts = left.split(",")
    if "." in equation or not arrow or len(parts) != 2:
        raise UnsupportedModel(f"Einsum {node.output!r}: {equation!r} is not two operands without ellipses")
    first, second = parts
    repeated = any(len(set(term)) < len(term) for term in (*parts, result))
    lonely = set(first) - set(second + result) or set(second) - set(first + result)
    if repeated or lonely:
        raise UnsupportedModel(f"Einsum {node.output!r}: {equation!r} has a diagonal or sums over one operand alone")
    return (first, second), result
