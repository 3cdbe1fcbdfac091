"""Gradients of activation functions beyond the rectifiers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from acclimate.export.backward.tape import Tape
from acclimate.export.graph import Node


def erf(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Erf: `2 / sqrt(pi) exp(-x^2)`."""
    return {0: tape.add("Mul", grad, _bell(node.inputs[0], 1.0, 2 / math.sqrt(math.pi), tape))}


def gelu(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Gelu (Hendrycks and Gimpel 2016, arXiv 1606.08415): `Phi(x) + x phi(x)`, or the tanh form's derivative."""
    x = node.inputs[0]
    if node.attributes.get("approximate", "none") == "tanh":
        return {0: tape.add("Mul", grad, _tanh_gelu_slope(x, tape))}
    inner = tape.add("Erf", tape.add("Mul", x, tape.number(math.sqrt(0.5))))
    half = tape.number(0.5)
    share = tape.add("Add", tape.add("Mul", inner, half), half)
    density = tape.add("Mul", x, _bell(x, 0.5, 1 / math.sqrt(2 * math.pi), tape))
    return {0: tape.add("Mul", grad, tape.add("Add", share, density))}


def hard_sigmoid(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """HardSigmoid: its slope where it is not saturated."""
    alpha, beta = float(node.attributes.get("alpha", 0.2)), float(node.attributes.get("beta", 0.5))
    return {0: tape.add("Mul", grad, _ramp_slope(node.inputs[0], alpha, beta, tape))}


def hard_swish(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """HardSwish `x h(x)` with `h = clip(x / 6 + 1/2, 0, 1)`: `h + x h'` (Howard et al. 2019, arXiv 1905.02244)."""
    x = node.inputs[0]
    gate = tape.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    slope = tape.add("Mul", x, _ramp_slope(x, 1 / 6, 0.5, tape))
    return {0: tape.add("Mul", grad, tape.add("Add", gate, slope))}


def exp(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Exp: `y`."""
    return {0: tape.add("Mul", grad, node.output)}


def log(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Log: `1 / x`."""
    return {0: tape.add("Div", grad, node.inputs[0])}


def sine(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Sin: the cosine."""
    return {0: tape.add("Mul", grad, tape.add("Cos", node.inputs[0]))}


def cosine(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Cos: minus the sine."""
    return {0: tape.add("Neg", tape.add("Mul", grad, tape.add("Sin", node.inputs[0])))}


def sqrt(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Sqrt: `1 / (2 y)`."""
    return {0: tape.add("Div", tape.add("Mul", grad, tape.number(0.5)), node.output)}


def reciprocal(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Reciprocal: `-y^2`."""
    return {0: tape.add("Neg", tape.add("Mul", grad, tape.add("Mul", node.output, node.output)))}


def softmax(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Softmax: `y (g - sum(g y))` along its axis."""
    axis = tape.integers(int(node.attributes.get("axis", -1)))
    total = tape.add("ReduceSum", tape.add("Mul", grad, node.output), axis, keepdims=1)
    return {0: tape.add("Mul", node.output, tape.add("Sub", grad, total))}


def log_softmax(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """LogSoftmax: `g - exp(y) sum(g)` along its axis."""
    axis = tape.integers(int(node.attributes.get("axis", -1)))
    total = tape.add("ReduceSum", grad, axis, keepdims=1)
    return {0: tape.add("Sub", grad, tape.add("Mul", tape.add("Exp", node.output), total))}


def _bell(x: str, rate: float, height: float, tape: Tape) -> str:
    """`height exp(-rate x^2)`."""
    exponent = tape.add("Mul", tape.add("Mul", x, x), tape.number(-rate))
    return tape.add("Mul", tape.add("Exp", exponent), tape.number(height))


def _tanh_gelu_slope(x: str, tape: Tape) -> str:
    """Derivative of `x (1 + t) / 2`, `t = tanh(c (x + a x^3))`: `(1 + t) / 2 + x (1 - t^2) c (1 + 3 a x^2) / 2`."""
    c, a = math.sqrt(2 / math.pi), 0.044715
    square, one, half = tape.add("Mul", x, x), tape.number(1.0), tape.number(0.5)
    bent = tape.add("Add", tape.add("Mul", square, tape.number(c * a)), tape.number(c))
    t = tape.add("Tanh", tape.add("Mul", x, bent))
    rest = tape.add("Sub", one, tape.add("Mul", t, t))
    inner = tape.add("Add", tape.add("Mul", square, tape.number(3 * a * c)), tape.number(c))
    slope = tape.add("Mul", tape.add("Mul", x, rest), inner)
    return tape.add("Mul", tape.add("Add", tape.add("Add", one, t), slope), half)


def _ramp_slope(x: str, alpha: float, beta: float, tape: Tape) -> str:
    """`alpha` where `0 < alpha x + beta < 1`, else 0."""
    ramp = tape.add("HardSigmoid", x, alpha=alpha, beta=beta)
    inside = tape.add("Mul", ramp, tape.add("Sub", tape.number(1.0), ramp))
    return tape.add("Where", tape.add("Greater", inside, tape.number(0.0)), tape.number(alpha), tape.number(0.0))
