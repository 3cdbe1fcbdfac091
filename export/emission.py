"""What the integer graphs are written with: a graph, its plan, and which tensors exist in which form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from acclimate.export.activations import ActivationPlan
from acclimate.export.graph import Graph, Node
from acclimate.export.passes.biases import BIAS_SITE
from acclimate.export.passes.sites import SITE, Adaptable
from acclimate.export.weights import QuantizedWeight

SiteTensors = Callable[[int], tuple[str, str]]


@dataclass(frozen=True)
class Fused:
    """A node with the site, the bias (a slice of theta) and the ReLU it absorbs; `output` is the last one's."""

    node: Node
    site: int | None
    output: str
    bias: str | None = None


@dataclass(frozen=True)
class Emission:
    """The graph being written, and what its choices rest on.

    `quantized` names the uint8 form of the tensors that have one; `reals` are those of them with a float form too, and
    `rows` those whose rows were quantized one by one (`row_products.py`).
    `site_tensors` are the scale and the bias of a folded site, by its index; a slice of theta or stats is a tensor
    of the slice's own name.
    """

    model: Adaptable
    graph: Graph
    plan: ActivationPlan
    weights: Mapping[str, QuantizedWeight]
    site_tensors: SiteTensors
    quantized: dict[str, str]
    reals: set[str]
    rows: set[str] = field(default_factory=set)

    def scale(self, tensor: str) -> tuple[str, str]:
        """Names of a tensor's scale and zero point."""
        entry = self.plan.scales[tensor]
        return self.graph.constant(entry.scale, np.float32), self.graph.constant(entry.zero, np.uint8)

    def integer(self, tensor: str) -> tuple[str, str, str]:
        """The tensor in uint8, made from its float form if need be, with scale and zero point."""
        if tensor not in self.quantized:
            name = self.graph.add("QuantizeLinear", (tensor, *self.scale(tensor)), name=f"{tensor}.q")
            self.quantized[tensor] = name
            self.reals.add(tensor)
        return (self.quantized[tensor], *self.scale(tensor))

    def real(self, tensor: str) -> str:
        """The tensor in float32, made from its uint8 form if need be."""
        if tensor in self.quantized and tensor not in self.reals:
            self.graph.add("DequantizeLinear", self.integer(tensor), name=tensor)
            self.reals.add(tensor)
        return tensor


def folded_sites(graph: Graph) -> frozenset[int]:
    """The sites that a convolution of their own carries as its scale and bias; the others run in float."""
    producers, consumers = graph.producers(), graph.consumers()
    result = set()
    for node in graph.nodes:
        maker = producers.get(node.inputs[0]) if node.op == SITE else None
        frozen = maker is not None and maker.op == "Conv" and maker.inputs[1] in graph.constants
        if frozen and len(consumers[node.inputs[0]]) == 1:
            result.add(node.attributes["site"])
    return frozenset(result)


def fused(graph: Graph) -> list[Fused]:
    """The nodes in order, each with the single-reader bias, norm and ReLU that follow it."""
    carried = folded_sites(graph)
    consumers, absorbed, result = graph.consumers(), set[str](), list[Fused]()
    for node in graph.nodes:
        if node.output in absorbed:
            continue
        output, site, bias = node.output, None, None
        for follower in _followers(node, graph):
            readers = consumers.get(output, [])
            if len(readers) != 1 or readers[0].op != follower:
                continue
            if follower == SITE and readers[0].attributes["site"] not in carried:
                continue
            output = readers[0].output
            absorbed.add(output)
            site = readers[0].attributes["site"] if follower == SITE else site
            bias = readers[0].attributes["slice"] if follower == BIAS_SITE else bias
        result.append(Fused(node, site, output, bias))
    return result


def _followers(node: Node, graph: Graph) -> tuple[str, ...]:
    """What a node may absorb, in this order."""
    if node.op == "Conv":
        return (BIAS_SITE, SITE, "Relu") if node.inputs[1] in graph.constants else (SITE, "Relu")
    return ("Relu",) if node.op == "Add" else ()
