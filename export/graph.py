"""A small editable dataflow graph: what the passes rewrite, and what becomes ONNX at the end.

Nodes are in topological order, every tensor has one producer, and the first axis of every activation is
the batch, written -1 in shapes. All other axes are known numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = -1
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Value:
    """Element type and shape of a tensor; -1 is the batch, of which a sample has `rows`."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Node:
    """One operator; an empty input name is an omitted optional input, as in ONNX."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""

    @property
    def output(self) -> str:
        """The first output."""
        return self.outputs[0]

    def renamed(self, names: Mapping[str, str]) -> Node:
        """The same node reading other tensors."""
        return replace(self, inputs=tuple(names.get(name, name) for name in self.inputs))


@dataclass
class Graph:
    """Inputs, outputs, constants, nodes, and the types of the tensors whose types are known."""

    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    _fresh: Iterator[int] = field(default_factory=lambda: iter(range(1 << 31)), repr=False)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, -1 for the batch."""
        if name in self.constants:
            return self.constants[name].shape
        return self.values[name].shape

    def add(self, op: str, inputs: Sequence[str], *, name: str = "", domain: str = "", **attributes: Any) -> str:
        """Append a node with one output, and return the output's name."""
        output = name or self.fresh(op.lower())
        self.nodes.append(Node(op, tuple(inputs), (output,), attributes, domain))
        return output

    def add_many(self, op: str, inputs: Sequence[str], names: Sequence[str], **attributes: Any) -> tuple[str, ...]:
        """Append a node with several outputs."""
        self.nodes.append(Node(op, tuple(inputs), tuple(names), attributes))
        return tuple(names)

    def constant(self, value: Array | float | Sequence[int], dtype: Any = None, name: str = "") -> str:
        """A constant's name; equal small constants that were given no name are shared."""
        array = np.asarray(value, dtype=dtype)
        if not name:
            name = f"c.{array.dtype}.{'x'.join(map(str, array.shape))}.{array.tobytes().hex()}"
            if array.nbytes > 32:
                name = self.fresh("c")
        self.constants.setdefault(name, array)
        return name

    def fresh(self, hint: str) -> str:
        """A name no other tensor of this graph has."""
        while True:
            name = f"{hint}_{next(self._fresh)}"
            if name not in self.values and name not in self.constants:
                return name

    def copy(self, nodes: Iterable[Node] | None = None) -> Graph:
        """A graph that can be changed without changing this one (arrays are shared)."""
        return Graph(
            dict(self.inputs),
            dict(self.outputs),
            dict(self.constants),
            list(self.nodes if nodes is None else nodes),
            dict(self.values),
            self._fresh,
        )

    def producers(self) -> dict[str, Node]:
        """The node that makes each tensor."""
        return {output: node for node in self.nodes for output in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        return readers


def pruned(graph: Graph) -> Graph:
    """Without the nodes and constants that no output depends on."""
    needed, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    result = graph.copy(reversed(kept))
    result.constants = {name: array for name, array in graph.constants.items() if name in needed}
    return result
