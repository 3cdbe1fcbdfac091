"""Input gradients of convolutions; weights are frozen, so theirs are never computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Node


def conv(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Conv: a plain convolution with the flipped, transposed kernel at stride 1, else a transposed one."""
    if tape.wants(node, 1) or tape.wants(node, 2):
        raise UnsupportedModel(f"Conv {node.output!r}: weights that depend on adapted parameters are not supported")
    if not tape.wants(node, 0):
        return {}
    weight, rank = node.inputs[1], len(tape.shape(node.inputs[0])) - 2
    strides = tape.attribute(node, "strides", [1] * rank)
    dilations = tape.attribute(node, "dilations", [1] * rank)
    pads = explicit_pads(node, tape, rank)
    kernel = tape.shape(weight)[2:]
    group = int(node.attributes.get("group", 1))
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    back = [r - p for r, p in zip(reach * 2, pads, strict=True)]
    if strides == [1] * rank and min(back) >= 0:
        flipped = flipped_kernel(weight, group, tape)
        return {0: tape.add("Conv", grad, flipped, pads=back, dilations=dilations, group=group, strides=strides)}
    sizes = tape.shape(node.inputs[0])[2:], tape.shape(node.output)[2:]
    # What the transposed windows cover beyond the input's end; negative where no window reached its last rows.
    beyond = [
        (out - 1) * s + r + 1 - before - size
        for size, out, s, r, before in zip(*sizes, strides, reach, pads[:rank], strict=True)
    ]
    return {0: _transposed(grad, weight, pads[:rank], beyond, tape, strides=strides, dilations=dilations, group=group)}


def _transposed(grad: str, weight: str, before: list[int], beyond: list[int], tape: Tape, **attributes: Any) -> str:
    """ConvTranspose cut to the input's size, with zeros for the rows that no window of the convolution reached."""
    cut = [max(end, 0) for end in beyond]
    result = tape.add("ConvTranspose", grad, weight, pads=before + cut, **attributes)
    short = [max(-end, 0) for end in beyond]
    if any(short):
        pads = tape.integers(*[0] * (len(short) + 4), *short)
        result = tape.add("Pad", result, pads, tape.number(0.0))
    return result


def conv_transpose(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """ConvTranspose: the convolution that it transposes, of the same kernel."""
    if tape.wants(node, 1) or tape.wants(node, 2):
        raise UnsupportedModel(f"{node.op} {node.output!r}: its weights depend on adapted parameters; not supported")
    if "output_shape" in node.attributes:
        raise UnsupportedModel(f"{node.op} {node.output!r}: output_shape is not supported; give explicit pads")
    rank = len(tape.shape(node.inputs[0])) - 2
    same = {key: node.attributes[key] for key in ("strides", "dilations", "group") if key in node.attributes}
    return {0: tape.add("Conv", grad, node.inputs[1], pads=explicit_pads(node, tape, rank), **same)}


def flipped_kernel(weight: str, group: int, tape: Tape) -> str:
    """`[G*O, I, *k]` -> `[G*I, O, *k]` with the kernel axes reversed; made of operators an engine folds at load."""
    outputs, inputs, *kernel = tape.shape(weight)
    rank, out = len(kernel), outputs // group
    axes = range(3, 3 + rank)
    grouped = tape.add("Reshape", weight, tape.integers(group, out, inputs, *kernel))
    swapped = tape.add("Transpose", grouped, perm=[0, 2, 1, *axes])
    reversed_ = tape.add(
        "Slice",
        swapped,
        tape.integers(*[-1] * rank),
        tape.integers(*[-(2**31)] * rank),
        tape.integers(*axes),
        tape.integers(*[-1] * rank),
    )
    return tape.add("Reshape", reversed_, tape.integers(group * inputs, out, *kernel))


def explicit_pads(node: Node, tape: Tape, rank: int) -> list[int]:
    """Begin and end pads; raises for `auto_pad`, whose pads depend on the shape."""
    if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", ""):
        raise UnsupportedModel(f"{node.op} {node.output!r}: auto_pad is not supported; give explicit pads")
    return tape.attribute(node, "pads", [0] * 2 * rank)
