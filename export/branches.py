"""Which side of their kinks the rectifiers of a graph were on, and torch taking the same sides.

A network of rectifiers is smooth only between its kinks. Of the millions of units of a deep one, a few lie closer to
a kink than float32 resolves; there float32 and float64 take different sides, both rightly, and one such unit in a
small late map moves a gradient by a per cent. Two gradients can be compared strictly only on one side of every kink.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from acclimate.export.graph import BATCH, Array, Graph, Node

_TORCH = {
    "Relu": ("relu", "relu_"),
    "Clip": ("relu6", "hardtanh", "hardtanh_", "clamp", "clamp_", "clip"),
    "HardSwish": ("hardswish", "hardswish_"),
    "HardSigmoid": ("hardsigmoid", "hardsigmoid_"),
    "LeakyRelu": ("leaky_relu", "leaky_relu_"),
    "MaxPool": ("max_pool2d", "_max_pool2d"),
}
_OPERATOR = {name: op for op, names in _TORCH.items() for name in names}
# Farther from a kink than this part of a tensor's standard deviation, another side is not rounding.
_NEAR = 1e-2


@dataclass(frozen=True)
class Call:
    """One rectifier of a graph: its operator, where its kinks are, and the input `[B, ...]` it had."""

    op: str
    kinks: tuple[float, ...]
    x: Array


@dataclass
class Branches:
    """The rectifiers of a graph in order, and, once torch has run on them, how far it would have gone elsewhere.

    Attributes:
        calls: what the graph did.
        units: elements that rectifiers saw.
        flipped: those of them that float64 alone would have had on another side of a kink.
        lost: torch did not do what the graph did, or was on another side by more than rounding.
    """

    calls: Sequence[Call]
    units: int = 0
    flipped: int = 0
    lost: bool = False


def taken(branches: Branches | None, row: int | None = None) -> AbstractContextManager[Any]:
    """Torch's rectifiers take the graph's sides inside, of all rows or of one; without branches, their own."""
    return nullcontext() if branches is None else _Taken(branches, row)


def rectified(graph: Graph) -> dict[str, tuple[str, tuple[float, ...]]]:
    """The inputs of a graph's rectifiers in order: by tensor, the operator and its kinks."""
    return {node.inputs[0]: (node.op, _kinks(node, graph)) for node in graph.nodes if _is_rectifier(node, graph)}


def seen(graph: Graph, tensors: Mapping[str, Array]) -> Branches:
    """Branches from the tensors that `rectified` names, of one run."""
    nodes = [node for node in graph.nodes if _is_rectifier(node, graph)]
    return Branches([Call(node.op, _kinks(node, graph), tensors[node.inputs[0]]) for node in nodes])


def _is_rectifier(node: Node, graph: Graph) -> bool:
    return node.op in _TORCH and node.inputs[0] in graph.values and graph.shape(node.inputs[0])[:1] == (BATCH,)


def _kinks(node: Node, graph: Graph) -> tuple[float, ...]:
    if node.op == "Clip":
        return tuple(float(graph.constants[name]) for name in node.inputs[1:3] if name in graph.constants)
    if node.op in ("HardSwish", "HardSigmoid"):
        swish = node.op == "HardSwish"
        alpha, beta = 1 / 6 if swish else node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
        return -beta / alpha, (1 - beta) / alpha
    return () if node.op == "MaxPool" else (0.0,)


class _Taken(TorchFunctionMode):
    """Moves what a rectifier sees to the side that the graph was on; gradients pass as if nothing had moved."""

    def __init__(self, branches: Branches, row: int | None) -> None:
        super().__init__()
        self.branches, self.row, self.left = branches, row, deque(branches.calls)

    def __torch_function__(
        self, function: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        op = _OPERATOR.get(getattr(function, "__name__", ""))
        if op is not None and not self.branches.lost and args and isinstance(args[0], Tensor):
            args = (self._moved(op, args[0]), *args[1:])
        return function(*args, **(kwargs or {}))

    def _moved(self, op: str, x: Tensor) -> Tensor:
        call = self.left.popleft() if self.left else None
        had = None if call is None else call.x if self.row is None else call.x[self.row : self.row + 1]
        if call is None or had is None or call.op != op or had.shape != tuple(x.shape):
            self.branches.lost = True
            return x
        there = torch.from_numpy(np.ascontiguousarray(had)).to(x.dtype)
        other = torch.ones_like(x, dtype=torch.bool)
        if call.kinks:
            edges = torch.tensor(call.kinks, dtype=x.dtype)
            other = torch.bucketize(x.detach(), edges) != torch.bucketize(there, edges)
            self.branches.flipped += int(other.sum())
        self.branches.units += x.numel()
        apart = (there - x.detach()).abs()[other]
        if apart.numel() and float(apart.max()) > _NEAR * float(there.std()):
            self.branches.lost = True
            return x
        return torch.where(other, there + (x - x.detach()), x)
