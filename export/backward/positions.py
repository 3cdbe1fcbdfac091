"""Gradients of operators that take or put elements at given positions; positions themselves have none.

Elements that were taken more than once get the sum of their gradients; where a scatter puts two elements at one
position, ONNX does not say which one stays, and neither do these rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Node


def gather(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Gather along an axis: each gradient is added where its element was taken."""
    data, places = node.inputs[:2]
    if not tape.wants(node, 0):
        return {}
    shape, rank = tape.shape(data), len(tape.shape(data))
    axis = int(node.attributes.get("axis", 0)) % rank
    count = tape.shape(places)
    length = -1 if BATCH in count or BATCH not in (*shape[:axis], *shape[axis + 1 :]) else math.prod(count)
    flat = [*shape[:axis], length, *shape[axis + 1 :]]
    rows = tape.add("Reshape", grad, tape.integers(*flat))
    column = tape.add("Reshape", places, tape.integers(*[1] * axis, -1, *[1] * (rank - axis - 1)))
    everywhere = tape.add("Expand", column, tape.add("Shape", rows))
    return {0: _added(data, everywhere, rows, axis, tape)}


def gather_elements(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """GatherElements: as Gather, with a position for each element."""
    if not tape.wants(node, 0):
        return {}
    return {0: _added(node.inputs[0], node.inputs[1], grad, int(node.attributes.get("axis", 0)), tape)}


def gather_nd(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """GatherND without batch dimensions: slices are added where they were taken."""
    if int(node.attributes.get("batch_dims", 0)):
        raise UnsupportedModel(f"GatherND {node.output!r}: batch_dims are not supported; index the batch as well")
    if not tape.wants(node, 0):
        return {}
    return {0: tape.add("ScatterND", zeros_like(node.inputs[0], tape), node.inputs[1], grad, reduction="add")}


def scatter_nd(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """ScatterND: to the slices that were put, and to the data everywhere else (everywhere, where they were added)."""
    _, places, updates = node.inputs
    grads = {}
    if tape.wants(node, 0):
        kept = grad if _adds(node) else tape.add("ScatterND", grad, places, zeros_like(updates, tape))
        grads[0] = kept
    if tape.wants(node, 2):
        grads[2] = tape.add("GatherND", grad, places)
    return grads


def scatter_elements(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """ScatterElements: as ScatterND, with a position for each element."""
    _, places, updates = node.inputs
    axis = int(node.attributes.get("axis", 0))
    grads = {}
    if tape.wants(node, 0):
        kept = grad if _adds(node) else tape.add("ScatterElements", grad, places, zeros_like(updates, tape), axis=axis)
        grads[0] = kept
    if tape.wants(node, 2):
        grads[2] = tape.add("GatherElements", grad, places, axis=axis)
    return grads


def zeros_like(name: str, tape: Tape) -> str:
    """Float32 zeros of a tensor's shape, the batch included."""
    return tape.add("Expand", tape.number(0.0), tape.add("Shape", name))


def _added(data: str, places: str, grad: str, axis: int, tape: Tape) -> str:
    return tape.add("ScatterElements", zeros_like(data, tape), places, grad, axis=axis, reduction="add")


def _adds(node: Node) -> bool:
    reduction = node.attributes.get("reduction", "none")
    if reduction not in ("none", "add"):
        raise UnsupportedModel(f"{node.op} {node.output!r}: reduction {reduction!r} is not supported")
    return bool(reduction == "add")
