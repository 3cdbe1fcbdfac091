"""Biases of linear layers and convolutions become slices of theta.

Requires: a simplified graph, after `low_rank.py`. Ensures: every matched layer computes without its bias, which a
`Bias` node behind it adds: one input, the attributes `slice`, a name of the parameter layout, and `view`, the bias's
shape against one row. A bias that a batch norm takes out again is left alone: it could not change an answer under the
batch's statistics, and the norm's shift stands for it otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from acclimate.export.adaptation import Biases, matches
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Array, Graph, Node
from acclimate.export.passes.layers import Layer, layer
from acclimate.export.passes.low_rank import LOW_RANK
from acclimate.export.passes.simplify import VIEW

BIAS_SITE = "Bias"
_BIAS = ".bias"
_CARRIES = frozenset({LOW_RANK, "Reshape", "Transpose"})


@dataclass(frozen=True)
class BiasSite:
    """A layer's bias: the module's name, and the slice, which is the bias's name in the model."""

    name: str
    slice: str
    channels: int


@dataclass(frozen=True)
class Lifted:
    """A graph whose biases are lifted, what was lifted, and the source's values by slice name."""

    graph: Graph
    sites: tuple[BiasSite, ...]
    tensors: dict[str, Array]


@dataclass(frozen=True)
class _Found:
    """A bias: its layer, the constant, and the node that adds it, which may be the layer's own."""

    at: Layer
    constant: str
    adder: Node


def with_biases(graph: Graph, parts: Sequence[Biases]) -> Lifted:
    """Lift the biases of the layers whose module name matches.

    Raises:
        UnsupportedModel: a pattern matches nothing, or a layer is applied twice or sees no rows of the batch.
    """
    patterns = [pattern for part in parts for pattern in part.targets]
    found = _biases(graph) if patterns else {}
    for pattern in patterns:
        if not any(matches(bias.at.name, [pattern]) for bias in found.values()):
            names = [bias.at.name for bias in found.values()]
            raise UnsupportedModel(
                f"bias: target {pattern!r} matches no layer with a bias that no batch norm follows; there are {names}"
            )
    result, sites, tensors = graph.copy(()), list[BiasSite](), dict[str, Array]()
    for node in graph.nodes:
        bias = found.get(node.output)
        if bias is None or not matches(bias.at.name, patterns):
            result.nodes.append(node)
            continue
        site = _site(bias)
        if site.slice in tensors:
            raise UnsupportedModel(f"bias: layer {site.name!r} is applied twice; leave it out of the targets")
        tensors[site.slice] = graph.constants[bias.constant].reshape(-1)
        sites.append(replace(site, channels=tensors[site.slice].size))
        _append(bias, sites[-1], result)
    return Lifted(result, tuple(sites), tensors)


def _biases(graph: Graph) -> dict[str, _Found]:
    """The biases that could be lifted, by the output of the node that adds them."""
    readers, layers, result = graph.consumers(), dict[str, Layer](), dict[str, _Found]()
    for node in graph.nodes:
        at = layer(node, graph)
        if at is not None:
            layers[node.output] = at
            own = node.inputs[2] if len(node.inputs) > 2 else ""
            whole = own in graph.constants and graph.constants[own].size == at.shape[0]
            if whole and not _normalised(node.output, readers):
                result[node.output] = _Found(at, own, node)
        elif node.op == LOW_RANK and node.inputs[0] in layers:
            layers[node.output] = layers[node.inputs[0]]
        elif node.op == "Add":
            result |= _added(node, graph, layers, readers)
    return result


def _added(
    node: Node, graph: Graph, layers: Mapping[str, Layer], readers: Mapping[str, list[Node]]
) -> dict[str, _Found]:
    """The sum of a product and a constant vector, as torch writes a linear layer over more than two axes."""
    for product, constant in (node.inputs, node.inputs[::-1]):
        at = layers.get(product)
        fits = at is not None and constant in graph.constants and graph.constants[constant].shape == at.shape[:1]
        if at is None or not fits or at.node.op != "MatMul" or len(readers[product]) > 1:
            continue
        if not _normalised(node.output, readers):
            return {node.output: _Found(at, constant, node)}
    return {}


def _normalised(name: str, readers: Mapping[str, list[Node]]) -> bool:
    """Whether a batch norm is all that reads a tensor."""
    if len(readers.get(name, [])) != 1:
        return False
    (reader,) = readers[name]
    return reader.op == "BatchNormalization" or (reader.op in _CARRIES and _normalised(reader.output, readers))


def _site(bias: _Found) -> BiasSite:
    name = bias.constant.partition(VIEW)[0]
    return BiasSite(bias.at.name, name if name.endswith(_BIAS) else f"{bias.at.name}{_BIAS}", 0)


def _append(bias: _Found, site: BiasSite, graph: Graph) -> None:
    node, value = bias.adder, graph.values[bias.adder.output]
    if value.shape[0] != BATCH:
        raise UnsupportedModel(
            f"bias: layer {site.name!r} answers {list(value.shape)}: its first axis must be the batch; leave it out"
        )
    if node.op == "Add":
        plain = next(name for name in node.inputs if name != bias.constant)
    else:
        plain = graph.fresh("unbiased")
        graph.values[plain] = value
        graph.nodes.append(replace(node, inputs=node.inputs[:2], outputs=(plain,)))
    behind = len(value.shape) - 2 if node.op == "Conv" else 0
    ahead = len(value.shape) - 2 - behind
    view = [1] * ahead + [site.channels] + [1] * behind
    graph.nodes.append(Node(BIAS_SITE, (plain,), node.outputs, {"slice": site.slice, "view": view}))
