"""Gradients of pooling."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from acclimate.export.backward.convolution import explicit_pads
from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Node


def global_average_pool(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """GlobalAveragePool: an equal share to every pixel."""
    _, channels, *spatial = tape.shape(node.inputs[0])
    share = tape.add("Mul", grad, tape.number(1 / math.prod(spatial)))
    return {0: tape.add("Expand", share, tape.integers(1, channels, *spatial))}


def reduce_mean(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """ReduceMean over constant axes other than the batch."""
    shape = tape.shape(node.inputs[0])
    count = math.prod(shape[axis] for axis in _reduced_axes(node, tape))
    return {0: _spread(node, tape.add("Mul", grad, tape.number(1 / count)), tape)}


def reduce_sum(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """ReduceSum over constant axes other than the batch."""
    return {0: _spread(node, grad, tape)}


def _reduced_axes(node: Node, tape: Tape) -> list[int]:
    rank = len(tape.shape(node.inputs[0]))
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1]:
        axes = tape.graph.constants[node.inputs[1]].tolist()
    axes = [axis % rank for axis in axes or range(rank)]
    if any(tape.shape(node.inputs[0])[axis] == BATCH for axis in axes):
        raise UnsupportedModel(f"{node.op} {node.output!r} reduces the batch; samples must not depend on each other")
    return axes


def kept_shape(node: Node, tape: Tape) -> tuple[list[int], list[int]]:
    """A reduction's input shape with 1 for every reduced axis, and these axes; raises where one is the batch."""
    axes = _reduced_axes(node, tape)
    return [1 if axis in axes else size for axis, size in enumerate(tape.shape(node.inputs[0]))], axes


def _spread(node: Node, grad: str, tape: Tape) -> str:
    """The gradient of a reduction repeated along the reduced axes."""
    shape, (kept, _) = tape.shape(node.inputs[0]), kept_shape(node, tape)
    column = tape.add("Reshape", grad, tape.integers(*kept))
    return tape.add("Expand", column, tape.integers(*(1 if size == BATCH else size for size in shape)))


def average_pool(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """AveragePool: each window's share, spread by a depthwise transposed convolution with ones."""
    _, channels, *sizes = tape.shape(node.inputs[0])
    kernel, strides, pads = _window(node, tape)
    if any(d != 1 for d in tape.attribute(node, "dilations", [1])) or node.attributes.get("ceil_mode", 0):
        raise UnsupportedModel(f"AveragePool {node.output!r}: dilations and ceil_mode are not supported")
    out = tape.shape(node.output)[2:]
    counts = np.full(out, math.prod(kernel), np.float32)
    if not node.attributes.get("count_include_pad", 0):
        counts = _covered(sizes, out, kernel, strides, pads)
    share = tape.add("Mul", grad, tape.graph.constant(1 / counts))
    ones = tape.graph.constant(np.ones((channels, 1, *kernel), np.float32))
    rank = len(kernel)
    spread = tape.add("ConvTranspose", share, ones, strides=strides, group=channels)
    # The transposed result covers the padded input up to the last window; cut the pads, add what is missing.
    cover = [(o - 1) * s + k for o, s, k in zip(out, strides, kernel, strict=True)]
    ends = [size + before - c for size, before, c in zip(sizes, pads[:rank], cover, strict=True)]
    crop = tape.integers(0, 0, *(-before for before in pads[:rank]), 0, 0, *ends)
    return {0: tape.add("Pad", spread, crop, tape.number(0.0))}


def max_pool(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """MaxPool: each gradient is added at the flat position its window took the maximum from."""
    attributes = {key: value for key, value in node.attributes.items() if key != "storage_order"}
    names = tape.graph.fresh("max_again"), tape.graph.fresh("max_at")
    _, places = tape.graph.add_many("MaxPool", node.inputs[:1], names, **attributes)
    source = node.inputs[0]
    flat = tape.add(
        "ScatterElements",
        _zeros(source, tape),
        tape.add("Reshape", places, tape.integers(-1)),
        tape.add("Reshape", grad, tape.integers(-1)),
        axis=0,
        reduction="add",
    )
    return {0: tape.add("Reshape", flat, tape.integers(*tape.shape(source)))}


def _zeros(source: str, tape: Tape) -> str:
    size = tape.add("Reshape", tape.add("Size", source), tape.integers(1))
    return tape.add("Expand", tape.number(0.0), size)


def _window(node: Node, tape: Tape) -> tuple[list[int], list[int], list[int]]:
    kernel = tape.attribute(node, "kernel_shape", [])
    return kernel, tape.attribute(node, "strides", [1] * len(kernel)), explicit_pads(node, tape, len(kernel))


def _covered(
    sizes: list[int], out: tuple[int, ...], kernel: list[int], strides: list[int], pads: list[int]
) -> np.ndarray:
    """How many real pixels each window sees, `[*out]`."""
    counts = np.ones((), np.float32)
    for size, o, k, s, before in zip(sizes, out, kernel, strides, pads[: len(kernel)], strict=True):
        start = np.arange(o) * s - before
        line = np.minimum(start + k, size) - np.maximum(start, 0)
        counts = np.multiply.outer(counts, line).astype(np.float32)
    return counts
