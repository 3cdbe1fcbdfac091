"""Gradients of sums of powers, norms and running sums along axes other than the batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acclimate.export.backward.pooling import kept_shape
from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Node

# Keeps the gradient of a norm finite at zero, where it is zero.
_TINY = float(np.finfo(np.float32).tiny)


def l1(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """ReduceL1: by the sign."""
    return {0: tape.add("Mul", _column(node, grad, tape), tape.add("Sign", node.inputs[0]))}


def l2(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """ReduceL2: `x / y`, zero at zero."""
    length = tape.add("Max", _column(node, node.output, tape), tape.number(_TINY))
    return {0: tape.add("Mul", node.inputs[0], tape.add("Div", _column(node, grad, tape), length))}


def sum_square(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """ReduceSumSquare: `2 x`."""
    double = tape.add("Mul", _column(node, grad, tape), tape.number(2.0))
    return {0: tape.add("Mul", node.inputs[0], double)}


def log_sum_exp(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """ReduceLogSumExp: `exp(x - y)`, the softmax."""
    share = tape.add("Exp", tape.add("Sub", node.inputs[0], _column(node, node.output, tape)))
    return {0: tape.add("Mul", share, _column(node, grad, tape))}


def lp_normalization(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """LpNormalization `y = x / n` along an axis: `(g - n' sum(g y)) / n`, with `n'` = y for p = 2, the sign for 1."""
    x, axis = node.inputs[0], tape.integers(int(node.attributes.get("axis", -1)))
    square = int(node.attributes.get("p", 2)) == 2
    length = tape.add("ReduceL2" if square else "ReduceL1", x, axis, keepdims=1)
    along = tape.add("ReduceSum", tape.add("Mul", grad, node.output), axis, keepdims=1)
    slope = node.output if square else tape.add("Sign", x)
    rest = tape.add("Sub", grad, tape.add("Mul", slope, along))
    return {0: tape.add("Div", rest, tape.add("Max", length, tape.number(_TINY)))}


def cumulative_sum(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """CumSum: summed from the other end."""
    if node.inputs[1] not in tape.graph.constants:
        raise UnsupportedModel(f"CumSum {node.output!r}: its axis is computed; a constant is expected")
    exclusive, backwards = (int(node.attributes.get(key, 0)) for key in ("exclusive", "reverse"))
    return {0: tape.add("CumSum", grad, node.inputs[1], exclusive=exclusive, reverse=1 - backwards)}


def _column(node: Node, name: str, tape: Tape) -> str:
    """A result of the reduction with its reduced axes kept as ones."""
    return tape.add("Reshape", name, tape.integers(*kept_shape(node, tape)[0]))
