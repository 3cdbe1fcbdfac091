"""Gradients of maxima and minima: to the elements that are the extremum, in equal shares where several are.

Equal shares are what torch's `amax` and `maximum` do, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.export.backward.pooling import kept_shape
from acclimate.export.backward.tape import Tape
from acclimate.export.graph import Node


def among(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Max and Min of any number of tensors, broadcast."""
    masks = [tape.add("Cast", tape.add("Equal", name, node.output), to=1) for name in node.inputs]
    count = masks[0] if len(masks) == 1 else tape.add("Sum", *masks)
    share = tape.add("Div", grad, count)
    whole = tape.shape(node.output)
    return {
        i: tape.summed_to(tape.add("Mul", share, masks[i]), tape.shape(node.inputs[i]), whole)
        for i in range(len(node.inputs))
        if tape.wants(node, i)
    }


def reduced(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """ReduceMax and ReduceMin over constant axes other than the batch."""
    kept, axes = kept_shape(node, tape)
    return {0: _shared(node, grad, kept, axes, tape)}


def global_max_pool(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """GlobalMaxPool: over all axes after the channels."""
    shape = tape.shape(node.inputs[0])
    return {0: _shared(node, grad, [*shape[:2], *[1] * (len(shape) - 2)], list(range(2, len(shape))), tape)}


def _shared(node: Node, grad: str, kept: list[int], axes: list[int], tape: Tape) -> str:
    top = tape.add("Reshape", node.output, tape.integers(*kept))
    mask = tape.add("Cast", tape.add("Equal", node.inputs[0], top), to=1)
    count = tape.add("ReduceSum", mask, tape.integers(*axes), keepdims=1)
    share = tape.add("Div", tape.add("Reshape", grad, tape.integers(*kept)), count)
    return tape.add("Mul", mask, share)
