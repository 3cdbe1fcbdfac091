"""Input gradients of normalisations whose statistics come from each sample alone.

For `n = (x - mean) / sqrt(var + eps)` over some axes, with g the gradient of n,

    gx = (g - mean(g) - n mean(g n)) / sqrt(var + eps)

(Ba et al. 2016, arXiv 1607.06450, section 3). The forward pass keeps only its result, so n is computed again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Node


def layer_norm(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """LayerNormalization with a frozen affine; adaptable ones are a Mul and an Add of their own."""
    _refuse_adapted_affine(node, tape)
    rank = len(tape.shape(node.inputs[0]))
    axes = list(range(int(node.attributes.get("axis", -1)) % rank, rank))
    return {0: _through(node, _scaled(grad, node.inputs[1], tape), axes, tape)}


def instance_norm(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """InstanceNormalization with a frozen affine `[C]`, over all axes after the channels."""
    _refuse_adapted_affine(node, tape)
    rank = len(tape.shape(node.inputs[0]))
    gain = tape.graph.constants[node.inputs[1]].reshape(-1, *[1] * (rank - 2))
    return {0: _through(node, _scaled(grad, tape.graph.constant(gain), tape), list(range(2, rank)), tape)}


def batch_norm(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """BatchNormalization at its running statistics, all frozen: times `gamma / sqrt(var + eps)`."""
    gamma, _, _, var = (tape.graph.constants[name].astype(np.float64) for name in node.inputs[1:5])
    gain = gamma / np.sqrt(var + float(node.attributes.get("epsilon", 1e-5)))
    shaped = gain.astype(np.float32).reshape(-1, *[1] * (len(tape.shape(node.inputs[0])) - 2))
    return {0: tape.add("Mul", grad, tape.graph.constant(shaped))}


def _through(node: Node, grad: str, axes: list[int], tape: Tape) -> str:
    x, over = node.inputs[0], tape.integers(*axes)
    centred = tape.add("Sub", x, tape.add("ReduceMean", x, over, keepdims=1))
    var = tape.add("ReduceMean", tape.add("Mul", centred, centred), over, keepdims=1)
    epsilon = tape.number(float(node.attributes.get("epsilon", 1e-5)))
    inverse = tape.add("Reciprocal", tape.add("Sqrt", tape.add("Add", var, epsilon)))
    normal = tape.add("Mul", centred, inverse)
    mean = tape.add("ReduceMean", grad, over, keepdims=1)
    along = tape.add("ReduceMean", tape.add("Mul", grad, normal), over, keepdims=1)
    rest = tape.add("Sub", tape.add("Sub", grad, mean), tape.add("Mul", normal, along))
    return tape.add("Mul", rest, inverse)


def _scaled(grad: str, gain: str, tape: Tape) -> str:
    if np.all(tape.graph.constants[gain] == 1):
        return grad
    return tape.add("Mul", grad, gain)


def _refuse_adapted_affine(node: Node, tape: Tape) -> None:
    if any(name not in tape.graph.constants for name in node.inputs[1:] if name):
        raise UnsupportedModel(f"{node.op} {node.output!r}: its affine is computed; constants are expected")
