"""What a backward rule may see and do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from acclimate.export.graph import Graph, Node


@dataclass(frozen=True)
class Tape:
    """The graph under construction, and which of its tensors depend on theta."""

    graph: Graph
    dependent: frozenset[str]

    def wants(self, node: Node, position: int) -> bool:
        """Whether the gradient of an input is needed."""
        return position < len(node.inputs) and node.inputs[position] in self.dependent

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node and return its output."""
        return self.graph.add(op, inputs, **attributes)

    def number(self, value: float) -> str:
        """A float32 scalar constant."""
        return self.graph.constant(value, np.float32)

    def integers(self, *values: int) -> str:
        """An int64 vector constant, for shapes, axes and pads."""
        return self.graph.constant(np.array(values, np.int64))

    def summed_to(self, grad: str, shape: tuple[int, ...], broadcast: tuple[int, ...]) -> str:
        """Undo broadcasting: sum a gradient of shape `broadcast` over the axes that `shape` lacks or has as 1."""
        lead = len(broadcast) - len(shape)
        axes = [*range(lead), *(lead + i for i, size in enumerate(shape) if size == 1 and broadcast[lead + i] != 1)]
        if axes:
            grad = self.add("ReduceSum", grad, self.integers(*axes), keepdims=1)
        return self.add("Reshape", grad, self.integers(*shape)) if lead else grad

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor of the forward graph; -1 is the batch."""
        return self.graph.shape(name)

    def attribute(self, node: Node, key: str, default: list[int]) -> list[int]:
        """An integer-list attribute, or its default."""
        return [int(value) for value in node.attributes.get(key, default)]


Rule = Callable[[Node, str, Tape], Mapping[int, str]]
"""`rule(node, gradient of its output, tape)` -> gradients of the wanted inputs, by position."""
