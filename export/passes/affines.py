"""Gains and shifts of layer, group, instance and root-mean-square norms become slices of theta.

Requires: a simplified graph. Ensures: every matched norm is its normalisation alone, followed by a Mul and an Add
whose right sides are `Parameter` nodes: no inputs, the attributes `slice` (a name of the parameter layout) and
`view` (the slice's shape against one row, the batch left out). These norms have no statistics to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acclimate.export.adaptation import matches
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Array, Graph, Node, Value, pruned
from acclimate.export.passes.simplify import VIEW

PARAMETER = "Parameter"
_GAIN, _SHIFT = ".weight", ".bias"


@dataclass(frozen=True)
class Affine:
    """A norm's gain and shift: the module's name, its slices (no `shift` where it has none), and its channels' axis."""

    name: str
    channels: int
    scale: str
    shift: str | None
    axis: int


@dataclass(frozen=True)
class Affines:
    """A graph whose affines are lifted, what was lifted, and the names of all that could have been."""

    graph: Graph
    lifted: tuple[Affine, ...]
    tensors: dict[str, Array]
    seen: tuple[str, ...]


@dataclass
class _Lift:
    source: Graph
    result: Graph
    producers: dict[str, Node]
    readers: dict[str, list[Node]]
    lifted: list[Affine]
    tensors: dict[str, Array]
    done: set[str]


def with_affines(graph: Graph, patterns: Sequence[str] = ("*",)) -> Affines:
    """Lift the affines whose module name matches one of the glob patterns.

    Raises:
        UnsupportedModel: one module normalises twice, or normalises something that is not in rows of the batch.
    """
    graph = graph.copy()
    lift = _Lift(graph, graph.copy(()), graph.producers(), graph.consumers(), [], {}, set())
    seen: list[str] = []
    for node in graph.nodes:
        if node.output in lift.done:
            continue
        name = _module(node, lift)
        if name is not None:
            seen.append(name)
        if name is None or not matches(name, patterns):
            lift.result.nodes.append(node)
        elif node.op == "LayerNormalization":
            _layer_norm(name, node, lift)
        elif node.op == "InstanceNormalization":
            _instance_norm(name, node, lift)
        else:
            _product(name, node, lift)
    return Affines(pruned(lift.result), tuple(lift.lifted), lift.tensors, tuple(seen))


def _module(node: Node, lift: _Lift) -> str | None:
    """The module whose affine a node applies, if it is one: its gain's name without the ending."""
    if node.op == "LayerNormalization":
        gain = node.inputs[1]
        last = int(node.attributes.get("axis", -1)) in (-1, len(lift.source.shape(node.inputs[0])) - 1)
        return gain.removesuffix(_GAIN) if gain.endswith(_GAIN) and last else None
    if node.op == "InstanceNormalization":
        gain = node.inputs[1]
        return gain.removesuffix(_GAIN) if gain.endswith(_GAIN) else None
    if node.op != "Mul":
        return None
    for gain, normal in (node.inputs, node.inputs[::-1]):
        name = gain.partition(VIEW)[0]
        if gain in lift.source.constants and name.endswith(_GAIN) and _is_normal(normal, lift):
            return name.removesuffix(_GAIN)
    return None


def _is_normal(name: str, lift: _Lift) -> bool:
    """Whether a tensor is what a group norm or a root-mean-square norm computes before its affine."""
    node = lift.producers.get(name)
    if node is not None and node.op == "Reshape":
        node = lift.producers.get(node.inputs[0])
        return node is not None and node.op == "InstanceNormalization"
    if node is None or node.op not in ("Mul", "Div"):
        return False
    divisor = lift.producers.get(node.inputs[1])
    if node.op == "Mul" and divisor is not None and divisor.op == "Reciprocal":
        divisor = lift.producers.get(divisor.inputs[0])
    elif node.op == "Mul":
        return False
    return divisor is not None and divisor.op == "Sqrt"


def _layer_norm(name: str, node: Node, lift: _Lift) -> None:
    x, gain, *rest = node.inputs
    ones = lift.result.constant(np.ones_like(lift.source.constants[gain]))
    shift = rest[0] if rest and rest[0] else None
    normal, scaled = lift.result.fresh("normal"), lift.result.fresh("scaled") if shift else node.output
    for made in (normal, scaled):
        lift.result.values[made] = lift.source.values[node.output]
    lift.result.nodes.append(Node(node.op, (x, ones), (normal,), node.attributes))
    _affine(name, (gain, shift), (normal, scaled, node.output), -1, lift)


def _instance_norm(name: str, node: Node, lift: _Lift) -> None:
    x, *affine = node.inputs
    rank, channels = len(lift.source.shape(x)), lift.source.shape(node.inputs[1])[0]
    plain = (lift.result.constant(make(channels, np.float32)) for make in (np.ones, np.zeros))
    tensors = lift.result.fresh("normal"), lift.result.fresh("scaled"), node.output
    for made in tensors[:2]:
        lift.result.values[made] = lift.source.values[node.output]
    lift.result.nodes.append(Node(node.op, (x, *plain), tensors[:1], node.attributes))
    viewed = [f"{constant}{VIEW}{channels}{'x1' * (rank - 2)}" for constant in affine]
    for view, constant in zip(viewed, affine, strict=True):
        lift.source.constants[view] = lift.source.constants[constant].reshape(-1, *[1] * (rank - 2))
    _affine(name, (viewed[0], viewed[1]), tensors, 1 - rank, lift)


def _product(name: str, node: Node, lift: _Lift) -> None:
    """A Mul, and the Add of the same module where that alone reads it."""
    gain, normal = node.inputs if node.inputs[0] in lift.source.constants else node.inputs[::-1]
    readers = lift.readers.get(node.output, [])
    shift, output = None, node.output
    if len(readers) == 1 and readers[0].op == "Add":
        constants = [i for i in readers[0].inputs if i.partition(VIEW)[0] == f"{name}{_SHIFT}"]
        if constants:
            shift, output = constants[0], readers[0].output
            lift.done.add(output)
    shape = lift.source.constants[gain].shape
    rank = len(lift.source.shape(node.output))
    _affine(name, (gain, shift), (normal, node.output, output), -1 if len(shape) == 1 else 1 - rank, lift)


def _affine(
    name: str, constants: tuple[str, str | None], tensors: tuple[str, str, str], axis: int, lift: _Lift
) -> None:
    gain, shift = constants
    normal, scaled, output = tensors
    if f"{name}{_GAIN}" in lift.tensors:
        raise UnsupportedModel(f"norm {name!r} is applied twice; give each use a module of its own")
    value = lift.source.values[output]
    if value.shape[0] != BATCH:
        raise UnsupportedModel(f"norm {name!r} sees {value.shape}: the batch must be its first axis; leave it out")
    if value.rows > 1:
        # Windows or patches of a sample share its row: they get an axis of their own for the affine.
        wide = Value(value.dtype, (BATCH, value.rows, *value.shape[1:]))
        normal = _reshaped(normal, wide, lift.result.fresh("rows"), lift)
        scaled, whole = (_named("row_affine", wide, lift) for _ in range(2))
        whole = whole if shift is not None else scaled
    else:
        wide, whole = value, output
    rank = len(wide.shape)
    lift.result.nodes.append(Node("Mul", (normal, _parameter(f"{name}{_GAIN}", gain, rank, lift)), (scaled,)))
    if shift is not None:
        parameter = _parameter(f"{name}{_SHIFT}", shift, rank, lift)
        lift.result.nodes.append(Node("Add", (scaled, parameter), (whole,)))
    if whole != output:
        _reshaped(whole, value, output, lift)
    channels = lift.source.constants[gain].size
    lift.lifted.append(Affine(name, channels, f"{name}{_GAIN}", f"{name}{_SHIFT}" if shift else None, axis))


def _reshaped(source: str, value: Value, output: str, lift: _Lift) -> str:
    lift.result.values[output] = value
    lift.result.nodes.append(Node("Reshape", (source, lift.result.constant(value.shape, np.int64)), (output,)))
    return output


def _named(hint: str, value: Value, lift: _Lift) -> str:
    name = lift.result.fresh(hint)
    lift.result.values[name] = value
    return name


def _parameter(name: str, constant: str, rank: int, lift: _Lift) -> str:
    array = lift.source.constants[constant]
    view = [1] * (rank - 1 - array.ndim) + list(array.shape[-(rank - 1) :])
    output = lift.result.fresh("parameter")
    lift.result.values[output] = Value(np.dtype(np.float32), (BATCH, *view))
    lift.result.nodes.append(Node(PARAMETER, (), (output,), {"slice": name, "view": view}))
    lift.tensors[name] = array.reshape(-1)
    return output
