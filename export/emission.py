"""What the integer graphs are written with: a graph, its plan, and which tensors exist in which form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from acclimate.export.activations import ActivationPlan
from acclimate.export.graph import Graph, Node
from acclimate.export.passes.sites import SITE, Adaptable
from acclimate.export.weights import QuantizedWeight

SiteTensors = Callable[[int], tuple[str, str]]


@dataclass(frozen=True)
class Fused:
    """A node with the site and the ReLU it absorbs; `output` is the last one's."""

    node: Node
    site: int | None
    output: str


@dataclass(frozen=True)
class Emission:
    """The graph being written, and what its choices rest on.

    `quantized` names the uint8 form of the tensors that have one; `reals` are those of them with a float form too.
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
    """The nodes in order, each with the single-reader norm and ReLU that follow it."""
    carried = folded_sites(graph)
    consumers, absorbed, result = graph.consumers(), set[str](), list[Fused]()
    for node in graph.nodes:
        if node.output in absorbed:
            continue
        output, site = node.output, None
        for follower in (SITE, "Relu"):
            readers = consumers.get(output, [])
            allowed = ("Conv",) if follower == SITE else ("Conv", "Add")
            if follower == SITE and readers and readers[0].attributes.get("site") not in carried:
                continue
            if node.op in allowed and len(readers) == 1 and readers[0].op == follower:
                output = readers[0].output
                absorbed.add(output)
                site = readers[0].attributes["site"] if follower == SITE else site
        result.append(Fused(node, site, output))
    return result
