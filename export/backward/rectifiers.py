"""Gradients of the rectifiers' relatives: piecewise, or a smooth bend where Relu has a kink."""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.export.backward.tape import Tape
from acclimate.export.graph import Node

# Constants of Klambauer et al. 2017 (arXiv 1706.02515), as ONNX rounds them.
_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def absolute(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Abs: by the sign."""
    return {0: tape.add("Mul", grad, tape.add("Sign", node.inputs[0]))}


def leaky_relu(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """LeakyRelu: 1 above zero, alpha below."""
    alpha = tape.number(float(node.attributes.get("alpha", 0.01)))
    return {0: tape.add("Mul", grad, _above_zero(node, tape.number(1.0), alpha, tape))}


def prelu(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """PRelu (He et al. 2015, arXiv 1502.01852): 1 or the slope, which is broadcast; the slope gets what lies below."""
    x, slope = node.inputs
    whole, grads = tape.shape(node.output), {}
    if tape.wants(node, 0):
        below = tape.add("Mul", grad, slope)
        taken = tape.add("Where", tape.add("Greater", x, tape.number(0.0)), grad, below)
        grads[0] = tape.summed_to(taken, tape.shape(x), whole)
    if tape.wants(node, 1):
        below = tape.add("Mul", grad, tape.add("Min", x, tape.number(0.0)))
        grads[1] = tape.summed_to(below, tape.shape(slope), whole)
    return grads


def elu(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Elu: 1 above zero, `alpha exp(x) = y + alpha` below."""
    bent = tape.add("Add", node.output, tape.number(float(node.attributes.get("alpha", 1.0))))
    return {0: tape.add("Mul", grad, _above_zero(node, tape.number(1.0), bent, tape))}


def celu(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Celu: 1 above zero, `exp(x / alpha) = y / alpha + 1` below."""
    scaled = tape.add("Mul", node.output, tape.number(1 / float(node.attributes.get("alpha", 1.0))))
    bent = tape.add("Add", scaled, tape.number(1.0))
    return {0: tape.add("Mul", grad, _above_zero(node, tape.number(1.0), bent, tape))}


def selu(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Selu: gamma above zero, `gamma alpha exp(x) = y + gamma alpha` below."""
    alpha = float(node.attributes.get("alpha", _SELU_ALPHA))
    gamma = float(node.attributes.get("gamma", _SELU_GAMMA))
    bent = tape.add("Add", node.output, tape.number(alpha * gamma))
    return {0: tape.add("Mul", grad, _above_zero(node, tape.number(gamma), bent, tape))}


def thresholded_relu(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """ThresholdedRelu: passes above alpha."""
    kept = tape.add("Greater", node.inputs[0], tape.number(float(node.attributes.get("alpha", 1.0))))
    return {0: tape.add("Where", kept, grad, tape.number(0.0))}


def softplus(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Softplus `log(1 + exp(x))`: the sigmoid."""
    return {0: tape.add("Mul", grad, tape.add("Sigmoid", node.inputs[0]))}


def softsign(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Softsign `x / (1 + |x|)`: `1 / (1 + |x|)^2`."""
    wide = tape.add("Add", tape.add("Abs", node.inputs[0]), tape.number(1.0))
    return {0: tape.add("Div", grad, tape.add("Mul", wide, wide))}


def mish(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Mish `x t`, `t = tanh(softplus(x))`: `t + x (1 - t^2) sigmoid(x)` (Misra 2019, arXiv 1908.08681)."""
    x = node.inputs[0]
    t = tape.add("Tanh", tape.add("Softplus", x))
    rest = tape.add("Sub", tape.number(1.0), tape.add("Mul", t, t))
    inner = tape.add("Mul", tape.add("Mul", x, rest), tape.add("Sigmoid", x))
    return {0: tape.add("Mul", grad, tape.add("Add", t, inner))}


def _above_zero(node: Node, above: str, below: str, tape: Tape) -> str:
    return tape.add("Where", tape.add("Greater", node.inputs[0], tape.number(0.0)), above, below)
