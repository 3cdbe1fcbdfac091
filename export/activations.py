"""How every activation of the integer graphs is quantized: uint8, asymmetric, one scale per tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.export.graph import Graph, Node
from acclimate.export.ranges import Range
from acclimate.export.session import run, session

MOVERS = frozenset({"Reshape", "Transpose", "Slice", "Pad", "MaxPool"})
"""Operators that return some of their input's values (and zeros), and so keep its scale."""
_PIXELWISE = frozenset({"Cast", "Mul", "Add", "Sub", "Div"})
_LEVELS = 256


@dataclass(frozen=True, slots=True)
class ActivationScale:
    """`real = scale * (q - zero)` with q in 0..255."""

    scale: float
    zero: int

    @classmethod
    def of(cls, span: Range) -> ActivationScale:
        """The scale that covers a range, with zero exactly representable."""
        low, high = min(span.low, 0.0), max(span.high, 0.0)
        scale = float(np.float32((high - low) / (_LEVELS - 1))) or 1.0
        return cls(scale, round(-low / scale))


@dataclass(frozen=True)
class ActivationPlan:
    """Scales by tensor name, and the tensor whose quantized form is the uint8 input itself, if there is one.

    `rows`: products by frozen matrices measure a scale for every row instead (`row_products.py`).
    """

    scales: Mapping[str, ActivationScale]
    direct: str | None
    rows: bool = False


def planned_scales(graph: Graph, ranges: Mapping[str, Range], headroom: float) -> ActivationPlan:
    """Choose a scale for every float activation of `graph`.

    What is computed from the image alone cannot drift out of its range: all 256 pixel values are tried, and no
    headroom is spent. Where the result equals the pixels up to scale and zero point, the bytes are used as they are.
    """
    scales: dict[str, ActivationScale] = {}
    direct = None
    levels = _pixel_levels(graph)
    for node in graph.nodes:
        name = node.output
        if name in levels:
            exact = _as_bytes(levels[name])
            scales[name] = exact or ActivationScale.of(Range(float(levels[name].min()), float(levels[name].max())))
            direct = name if exact else direct
        elif node.op in MOVERS and node.inputs[0] in scales:
            scales[name] = scales[node.inputs[0]]
        elif name in ranges:
            scales[name] = ActivationScale.of(ranges[name].widened(headroom))
    return ActivationPlan(scales, direct)


def _pixel_levels(graph: Graph) -> dict[str, NDArray[np.float32]]:
    """For tensors computed pixel by pixel from the uint8 image: their values `[256, C]` at every pixel value."""
    ((image, value),) = graph.inputs.items()
    if value.dtype != np.uint8 or len(value.shape) != 4:
        return {}
    reached, chain = {image}, list[Node]()
    for node in graph.nodes:
        sources = [name for name in node.inputs if name not in graph.constants]
        if node.op in _PIXELWISE and len(sources) == 1 and reached.issuperset(sources):
            reached.add(node.output)
            chain.append(node)
    names = [n.output for n in chain if graph.values[n.output].dtype == np.float32]
    if not names:
        return {}
    running = session(_only(graph, chain, names))
    flat = np.broadcast_to(np.arange(_LEVELS, dtype=np.uint8).reshape(-1, 1, 1, 1), (_LEVELS, *value.shape[1:]))
    parts = [run(running, {image: np.ascontiguousarray(flat[i : i + 16])}) for i in range(0, _LEVELS, 16)]
    return {name: np.concatenate([part[name][:, :, 0, 0] for part in parts]) for name in names}


def _only(graph: Graph, nodes: list[Node], outputs: list[str]) -> Graph:
    part = graph.copy(nodes)
    part.outputs = {name: graph.values[name] for name in outputs}
    return part


def _as_bytes(levels: NDArray[np.float32]) -> ActivationScale | None:
    """The scale that turns pixel values into `levels`, where one scale and one integer zero point do."""
    step = float(levels[-1, 0] - levels[0, 0]) / (_LEVELS - 1)
    if step <= 0:
        return None
    zero = round(float(-levels[0, 0]) / step)
    exact = (np.arange(_LEVELS)[:, None] - zero) * step
    if not 0 <= zero < _LEVELS or np.abs(levels - exact).max() > 1e-3 * step:
        return None
    return ActivationScale(float(np.float32(step)), zero)
