"""Gradients of operators that only move elements."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acclimate.export.backward.resampling import reflected
from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Node


def reshape(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Reshape: back to the input's shape."""
    return {0: tape.add("Reshape", grad, tape.integers(*tape.shape(node.inputs[0])))}


def transpose(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Transpose: by the inverse permutation."""
    rank = len(tape.shape(node.inputs[0]))
    order = tape.attribute(node, "perm", list(range(rank))[::-1])
    return {0: tape.add("Transpose", grad, perm=np.argsort(order).tolist())}


def concat(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Concat: each input's own part."""
    axis = int(node.attributes["axis"]) % len(tape.shape(node.output))
    grads, start = {}, 0
    for position, name in enumerate(node.inputs):
        end = start + tape.shape(name)[axis]
        if tape.wants(node, position):
            grads[position] = tape.add("Slice", grad, tape.integers(start), tape.integers(end), tape.integers(axis))
        start = end
    return grads


def expand(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Expand: summed over the repeated axes."""
    return {0: tape.summed_to(grad, tape.shape(node.inputs[0]), tape.shape(node.output))}


def pad(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Pad: the inner part, with zeros where it cropped; in modes other than `constant`, copies are added up."""
    shape = tape.shape(node.inputs[0])
    pads = pad_widths(node, tape)
    if node.attributes.get("mode", "constant") != "constant":
        return {0: reflected(node, pads, grad, tape)}
    if min([0, *(width for pair in pads for width in pair)]) < 0:
        return {0: _padded(grad, [(-before, -after) for before, after in pads], tape)}
    axes = [axis for axis, (before, after) in enumerate(pads) if before or after]
    starts = [pads[axis][0] for axis in axes]
    ends = [pads[axis][0] + shape[axis] for axis in axes]
    return {0: tape.add("Slice", grad, tape.integers(*starts), tape.integers(*ends), tape.integers(*axes))}


def pad_widths(node: Node, tape: Tape) -> list[tuple[int, int]]:
    """`(before, after)` of every axis."""
    shape = tape.shape(node.inputs[0])
    widths = tape.graph.constants[node.inputs[1]].tolist()
    axes = list(range(len(shape)))
    if len(node.inputs) > 3 and node.inputs[3]:
        axes = [int(axis) % len(shape) for axis in tape.graph.constants[node.inputs[3]]]
    pairs = [(0, 0)] * len(shape)
    for axis, before, after in zip(axes, widths[: len(axes)], widths[len(axes) :], strict=True):
        pairs[axis] = (before, after)
    return pairs


def slice_(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Slice: zeros between and around the taken elements."""
    shape, taken = tape.shape(node.inputs[0]), tape.shape(node.output)
    parts = _slice_ranges(node, tape)
    if any(shape[axis] == BATCH for axis in parts):
        raise UnsupportedModel(f"Slice {node.output!r}: slices of the batch are not supported")
    grad, parts = _forwards(grad, parts, shape, taken, tape)
    steps = [parts.get(axis, (0, 1))[1] for axis in range(len(shape))]
    if shape[0] != BATCH and max(steps) > 1:
        raise UnsupportedModel(f"Slice {node.output!r}: steps where the batch is not the first axis are not supported")
    around: list[tuple[int, int]] = []
    for axis in range(len(shape)):
        if shape[axis] == BATCH:
            around.append((0, 0))
            continue
        start = parts.get(axis, (0, 1))[0]
        start = min(start + shape[axis] if start < 0 else start, shape[axis])
        around.append((start, shape[axis] - start - (taken[axis] - 1) * steps[axis] - 1))
    return {0: _padded(_with_gaps(grad, taken, steps, tape), around, tape)}


def _forwards(
    grad: str, parts: dict[int, tuple[int, int]], shape: tuple[int, ...], taken: tuple[int, ...], tape: Tape
) -> tuple[str, dict[int, tuple[int, int]]]:
    """The gradient reversed along the axes that were taken backwards, and ranges whose steps are positive."""
    backwards = [axis for axis, (_, step) in parts.items() if step < 0]
    if not backwards:
        return grad, parts
    ones = [-1] * len(backwards)
    ends = tape.integers(*[-(2**31)] * len(backwards))
    grad = tape.add("Slice", grad, tape.integers(*ones), ends, tape.integers(*backwards), tape.integers(*ones))
    result = dict(parts)
    for axis in backwards:
        start, step = parts[axis]
        first = min(start + shape[axis] if start < 0 else start, shape[axis] - 1)
        result[axis] = (first + (taken[axis] - 1) * step, -step)
    return grad, result


def _with_gaps(grad: str, taken: tuple[int, ...], steps: list[int], tape: Tape) -> str:
    """`step - 1` zeros between neighbours along each axis.

    Over the two axes of a picture a transposed convolution by one does it, ten times as fast as padding.
    """
    if len(taken) == 4 and steps[1] == 1 and max(steps) > 1:
        ones = tape.graph.constant(np.ones((taken[1], 1, 1, 1), np.float32))
        return tape.add("ConvTranspose", grad, ones, group=taken[1], strides=steps[2:])
    for axis, step in enumerate(steps):
        if step > 1:
            known = list(taken)
            known[:axis] = [(size - 1) * s + 1 for size, s in zip(taken[:axis], steps[:axis], strict=True)]
            known[0] = BATCH
            split = tape.add("Reshape", grad, tape.integers(*known[: axis + 1], 1, *known[axis + 1 :]))
            gaps = [(0, 0)] * (len(taken) + 1)
            gaps[axis + 1] = (0, step - 1)
            known[axis] *= step
            wide = tape.add("Reshape", _padded(split, gaps, tape), tape.integers(*known))
            last = [(0, 0)] * len(taken)
            last[axis] = (0, 1 - step)
            grad = _padded(wide, last, tape)
    return grad


def _slice_ranges(node: Node, tape: Tape) -> dict[int, tuple[int, int]]:
    """Start and step by axis; the whole batch is left out."""
    constants = tape.graph.constants
    starts = constants[node.inputs[1]].tolist()
    axes, steps = list(range(len(starts))), [1] * len(starts)
    rank = len(tape.shape(node.inputs[0]))
    if len(node.inputs) > 3 and node.inputs[3]:
        axes = [int(axis) % rank for axis in constants[node.inputs[3]]]
    if len(node.inputs) > 4 and node.inputs[4]:
        steps = constants[node.inputs[4]].tolist()
    return dict(zip(axes, zip(starts, steps, strict=True), strict=True))


def _padded(name: str, pairs: list[tuple[int, int]], tape: Tape) -> str:
    if not any(width for pair in pairs for width in pair):
        return name
    widths = [before for before, _ in pairs] + [after for _, after in pairs]
    return tape.add("Pad", name, tape.integers(*widths), tape.number(0.0))
