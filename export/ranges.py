"""The range of every activation on calibration data, with headroom for what adaptation may do to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from acclimate.export.graph import Array, Graph
from acclimate.export.progress import counted
from acclimate.export.session import batches, run, session


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest value of a tensor; zero is always inside."""

    low: float
    high: float

    def widened(self, headroom: float) -> Range:
        """Both ends moved away from zero by a factor."""
        return Range(self.low * headroom, self.high * headroom)


def measured_ranges(graph: Graph, inputs: Array) -> dict[str, Range]:
    """Extremes of every float tensor of `graph` over calibration `inputs [N, ...]`."""
    names = [
        name
        for node in graph.nodes
        for name in node.outputs
        if name in graph.values and graph.values[name].dtype == np.float32 and name not in graph.outputs
    ]
    running = session(graph, names)
    (image,) = graph.inputs
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for rows in counted(batches(len(inputs)), "batches"):
        for name, value in run(running, {image: inputs[rows]}).items():
            low[name] = min(low.get(name, 0.0), float(value.min()))
            high[name] = max(high.get(name, 0.0), float(value.max()))
    return {name: Range(low[name], high[name]) for name in low}


def widened(ranges: Mapping[str, Range], headroom: float) -> dict[str, Range]:
    """Every range with headroom."""
    return {name: entry.widened(headroom) for name, entry in ranges.items()}
