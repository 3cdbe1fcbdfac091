"""Gradients of linear maps along spatial axes whose weights are constants: resizing, and padding by reflection.

Such a map is a small matrix per axis, found here by running the operator itself on unit vectors, whatever its mode,
and the gradient is a product with it from each side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Array, Node
from acclimate.export.onnx_format import evaluate


def resize(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Resize of pictures `[B, C, H, W]` in any mode without extrapolation."""
    if node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize" or len(_sizes(node, tape)) != 2:
        raise UnsupportedModel(f"Resize {node.output!r}: only whole pictures [B, C, H, W] can be resized")
    sides = zip(_sizes(node, tape), tape.shape(node.output)[2:], strict=True)
    scales = _scales(node, tape)
    maps = [_resized(node, axis, *side, scales) for axis, side in enumerate(sides)]
    return {0: _from_both_sides(grad, maps, tape)}


def reflected(node: Node, pads: list[tuple[int, int]], grad: str, tape: Tape) -> str:
    """Pad in the modes `reflect`, `edge` and `wrap` over the last two of four axes."""
    if len(pads) != 4 or any(width for pair in pads[:2] for width in pair):
        raise UnsupportedModel(f"Pad {node.output!r}: mode {node.attributes['mode']!r} needs pictures [B, C, H, W]")
    maps = []
    for size, pair in zip(_sizes(node, tape), pads[2:], strict=True):
        inputs: list[Array | None] = [np.eye(size, dtype=np.float32), np.array([0, pair[0], 0, pair[1]])]
        maps.append(_evaluated("Pad", inputs, node.attributes).T)
    return _from_both_sides(grad, maps, tape)


def _sizes(node: Node, tape: Tape) -> tuple[int, ...]:
    return tape.shape(node.inputs[0])[2:]


def _scales(node: Node, tape: Tape) -> list[float]:
    """The two given factors, or none where sizes were given."""
    given = tape.graph.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
    return [] if given is None or not given.size else [float(scale) for scale in given[-2:]]


def _resized(node: Node, axis: int, before: int, after: int, scales: list[float]) -> Array:
    """The matrix `[after, before]` of one axis, of unit vectors that are constant along the other."""
    units = np.eye(before, dtype=np.float32)[:, None, :, None]
    attributes = {key: value for key, value in node.attributes.items() if key != "axes"}
    how: list[Array | None] = [np.array([1, 1, scales[axis], 1], np.float32)] if scales else [None]
    if not scales:
        how.append(np.array([before, 1, after, 1]))
    return _evaluated("Resize", [units, None, *how], attributes)[:, 0, :, 0].T


def _evaluated(op: str, inputs: list[Array | None], attributes: Mapping[str, Any]) -> Array:
    names = tuple("" if array is None else f"x{i}" for i, array in enumerate(inputs))
    return evaluate(Node(op, names, ("y",), attributes), inputs)[0]


def _from_both_sides(grad: str, maps: list[Array], tape: Tape) -> str:
    rows, columns = maps
    from_left = tape.add("MatMul", tape.graph.constant(np.ascontiguousarray(rows.T)), grad)
    return tape.add("MatMul", from_left, tape.graph.constant(columns))
