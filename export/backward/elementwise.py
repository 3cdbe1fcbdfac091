"""Gradients of element-wise operators."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import helper

from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Node


def _each(node: Node, grads: Mapping[int, str], tape: Tape) -> Mapping[int, str]:
    whole = tape.shape(node.output)
    return {i: tape.summed_to(grad, tape.shape(node.inputs[i]), whole) for i, grad in grads.items()}


def add(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Add: the gradient itself, to both sides."""
    return _each(node, {i: grad for i in (0, 1) if tape.wants(node, i)}, tape)


def sub(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Sub: the gradient, and its negative to the right side."""
    grads = {0: grad} if tape.wants(node, 0) else {}
    if tape.wants(node, 1):
        grads[1] = tape.add("Neg", grad)
    return _each(node, grads, tape)


def mul(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Mul: times the other side."""
    return _each(node, {i: tape.add("Mul", grad, node.inputs[1 - i]) for i in (0, 1) if tape.wants(node, i)}, tape)


def div(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Div: `g / b` to the left, `-g y / b` to the right."""
    over = tape.add("Div", grad, node.inputs[1])
    grads = {0: over} if tape.wants(node, 0) else {}
    if tape.wants(node, 1):
        grads[1] = tape.add("Neg", tape.add("Mul", over, node.output))
    return _each(node, grads, tape)


def total(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Sum of any number of tensors: the gradient itself, to each."""
    return _each(node, {i: grad for i in range(len(node.inputs)) if tape.wants(node, i)}, tape)


def mean(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Mean of any number of tensors: an equal share to each."""
    return total(node, tape.add("Mul", grad, tape.number(1 / len(node.inputs))), tape)


def pow_(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Pow with constant exponents: `c x^(c - 1)`."""
    exponent = tape.graph.constants.get(node.inputs[1])
    if exponent is None:
        raise UnsupportedModel(f"Pow {node.output!r}: its exponent is computed; a constant is expected")
    power = exponent.astype(np.float32)
    less, factor = tape.graph.constant(power - np.float32(1)), tape.graph.constant(power)
    slope = tape.add("Mul", tape.add("Pow", node.inputs[0], less), factor)
    return _each(node, {0: tape.add("Mul", grad, slope)}, tape)


def cast(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Cast and CastLike between kinds of floats: back to the input's kind."""
    kind = tape.graph.values[node.inputs[0]].dtype
    if kind.kind != "f" or tape.graph.values[node.output].dtype.kind != "f":
        raise UnsupportedModel(f"{node.op} {node.output!r}: only casts from float to float have a gradient")
    return {0: tape.add("Cast", grad, to=int(helper.np_dtype_to_tensor_dtype(kind)))}


def where(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Where: to the side that was taken."""
    condition, zero = node.inputs[0], tape.number(0.0)
    sides = {1: (grad, zero), 2: (zero, grad)}
    grads = {i: tape.add("Where", condition, *pair) for i, pair in sides.items() if tape.wants(node, i)}
    return _each(node, grads, tape)


def identity(_: Node, grad: str, __: Tape) -> Mapping[int, str]:
    """Identity."""
    return {0: grad}


def neg(_: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Neg."""
    return {0: tape.add("Neg", grad)}


def relu(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Relu: `min(1e38 y, 1)` is its mask, exactly, for every y that is zero or a normal float.

    HardSigmoid is that in one vectorised pass; Greater with Where or Cast, and Sign, took two to five times as long
    on 64x16x32x32 in ONNX Runtime.
    """
    return {0: tape.add("Mul", grad, tape.add("HardSigmoid", node.output, alpha=1e38, beta=0.0))}


def sigmoid(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Sigmoid: `y (1 - y)`."""
    rest = tape.add("Sub", tape.number(1.0), node.output)
    return {0: tape.add("Mul", grad, tape.add("Mul", node.output, rest))}


def tanh(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Tanh: `1 - y^2`."""
    return {0: tape.add("Sub", grad, tape.add("Mul", grad, tape.add("Mul", node.output, node.output)))}


def clip(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Clip: passes where the value was kept."""
    kept = tape.add("Cast", tape.add("Equal", node.inputs[0], node.output), to=1)
    return {0: tape.add("Mul", grad, kept)}
