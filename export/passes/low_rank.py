"""Low-rank updates of frozen weights: linear layers and convolutions get a branch of their own (LoRA).

Requires: a simplified graph whose batch norms are not folded yet. Ensures: behind every matched layer stands a
`LowRank` node that reads the layer's answer and the layer's input and has the layer's old output; its attributes are
`a` and `b`, slices of theta, `rank`, `factor`, what the branch is multiplied with (one number, or one for each output
channel, float64), and for convolutions `kernel` and `conv`, the layer's own attributes. The branch is PEFT's: for a
convolution `rank` filters of the layer's own kernel, stride, padding and dilation, then one by one.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.manifest import Lora
from acclimate.export.adaptation import LowRank, matches
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Array, Graph, Node
from acclimate.export.passes.layers import Layer, layer

LOW_RANK = "LowRank"


@dataclass(frozen=True)
class Update:
    """One layer's update: what the manifest says of it, and the weight it changes, as the model holds it.

    `transposed` weights are `[in, out]`; all others have the outputs first, as B has.
    """

    lora: Lora
    weight: str
    transposed: bool


@dataclass(frozen=True)
class Updated:
    """A graph with its updates in layer order, and the source's A and B by slice name."""

    graph: Graph
    updates: tuple[Update, ...]
    tensors: dict[str, Array]


def with_low_rank(graph: Graph, parts: Sequence[LowRank]) -> Updated:
    """Give every matched layer a branch.

    Raises:
        UnsupportedModel: a pattern matches nothing, a layer is matched twice, the rank is larger than a layer's
            smaller dimension, or a layer sees something that is not in rows of the batch.
    """
    layers = [found for node in graph.nodes if (found := layer(node, graph)) is not None]
    chosen = _chosen(layers, parts)
    result, updates, tensors = graph.copy(()), dict[str, Update](), dict[str, Array]()
    for node in graph.nodes:
        if node.output not in chosen:
            result.nodes.append(node)
            continue
        at, part = chosen[node.output]
        update = _update(at, part)
        updates[update.lora.name] = update
        tensors |= _at_source(update.lora, at)
        _append(at, update.lora, result)
    return Updated(result, tuple(updates.values()), tensors)


def _chosen(layers: Sequence[Layer], parts: Sequence[LowRank]) -> dict[str, tuple[Layer, LowRank]]:
    """By the node's output, the layers that are updated, and how."""
    result: dict[str, tuple[Layer, LowRank]] = {}
    open_to = [at for at in layers if at.groups == 1]
    for part in parts:
        for pattern in part.targets:
            if not any(matches(at.name, [pattern]) for at in open_to):
                _refuse_target(pattern, layers)
        for at in open_to:
            if not matches(at.name, part.targets):
                continue
            if at.node.output in result:
                raise UnsupportedModel(f"lora: layer {at.name!r} is matched by two updates; give it one")
            result[at.node.output] = at, part
    return result


def _refuse_target(pattern: str, layers: Sequence[Layer]) -> None:
    grouped = [at.name for at in layers if matches(at.name, [pattern])]
    if grouped:
        raise UnsupportedModel(
            f"lora: target {pattern!r} matches grouped convolutions only ({grouped[:3]}), which have no low-rank "
            "update here; adapt their norms or biases"
        )
    names = [at.name for at in layers if at.groups == 1]
    raise UnsupportedModel(f"lora: target {pattern!r} matches no linear layer or convolution; there are {names}")


def _update(at: Layer, part: LowRank) -> Update:
    out, into = at.shape[0], int(np.prod(at.shape[1:]))
    if part.rank > min(out, into):
        raise UnsupportedModel(
            f"lora: r is {part.rank}, but layer {at.name!r} maps {into} numbers to {out}; use r <= {min(out, into)}, "
            "or targets that leave it out"
        )
    lora = Lora(at.name, f"{at.name}.lora_A.weight", f"{at.name}.lora_B.weight", part.rank, part.weight)
    return Update(lora, at.weight, at.transposed)


def _at_source(lora: Lora, at: Layer) -> dict[str, Array]:
    """A random and B zero, so that the source model is what it was.

    A is uniform within `1 / sqrt(in)`, as PEFT and torch draw it; the layer's name is the seed.
    """
    shape = (lora.rank, *at.shape[1:])
    bound = 1 / np.sqrt(np.prod(shape[1:]))
    a = np.random.default_rng(zlib.crc32(lora.name.encode())).uniform(-bound, bound, shape)
    b = np.zeros((at.shape[0], lora.rank, *[1] * (len(shape) - 2)), np.float32)
    return {lora.a: a.astype(np.float32), lora.b: b}


def _append(at: Layer, lora: Lora, graph: Graph) -> None:
    node, value = at.node, graph.values[at.node.output]
    source = graph.values[node.inputs[0]]
    if source.shape[0] != BATCH or (node.op == "Conv" and source.rows > 1):
        raise UnsupportedModel(
            f"lora: layer {at.name!r} sees {list(source.shape)}: its first axis must be the batch; leave it out"
        )
    plain = graph.fresh("frozen")
    graph.values[plain] = value
    graph.nodes.append(replace(node, outputs=(plain,)))
    attributes = {"a": lora.a, "b": lora.b, "rank": lora.rank, "factor": np.float64(lora.alpha / lora.rank)}
    if node.op == "Conv":
        attributes |= {"kernel": list(at.shape[2:]), "conv": dict(node.attributes)}
    graph.nodes.append(Node(LOW_RANK, (plain, node.inputs[0]), node.outputs, attributes))


def without_low_rank(graph: Graph) -> Graph:
    """The same graph with B zero: the branches are gone, and every tensor keeps its name but the layers' answers."""
    names = {node.inputs[0]: node.output for node in graph.nodes if node.op == LOW_RANK}
    return graph.copy(
        replace(node, outputs=tuple(names.get(name, name) for name in node.outputs))
        for node in graph.nodes
        if node.op != LOW_RANK
    )
