"""Gradients of operators that repeat, mask or interleave elements."""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Node


def tile(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Tile by constant counts: summed over the copies."""
    shape = tape.shape(node.inputs[0])
    counts = tape.graph.constants.get(node.inputs[1])
    if counts is None or any(count != 1 for size, count in zip(shape, counts, strict=True) if size == BATCH):
        raise UnsupportedModel(f"Tile {node.output!r}: the counts must be constants, and 1 for the batch")
    split = [part for size, count in zip(shape, counts.tolist(), strict=True) for part in (count, size)]
    axes = [2 * axis for axis in range(len(shape))]
    copies = tape.add("Reshape", grad, tape.integers(*split))
    return {0: tape.add("ReduceSum", copies, tape.integers(*axes), keepdims=0)}


def trilu(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """Trilu: the same triangle."""
    return {0: tape.add("Trilu", grad, *node.inputs[1:], **node.attributes)}


def depth_to_space(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """DepthToSpace, the column-row-depth order (torch's PixelShuffle) included: its inverse."""
    block = int(node.attributes["blocksize"])
    if node.attributes.get("mode", "DCR") == "DCR":
        return {0: tape.add("SpaceToDepth", grad, blocksize=block)}
    _, channels, height, width = tape.shape(node.output)
    parts = (BATCH, channels, height // block, block, width // block, block)
    split = tape.add("Reshape", grad, tape.integers(*parts))
    turned = tape.add("Transpose", split, perm=[0, 1, 3, 5, 2, 4])
    return {0: tape.add("Reshape", turned, tape.integers(*tape.shape(node.inputs[0])))}


def space_to_depth(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
    """SpaceToDepth: its inverse."""
    return {0: tape.add("DepthToSpace", grad, blocksize=int(node.attributes["blocksize"]), mode="DCR")}
