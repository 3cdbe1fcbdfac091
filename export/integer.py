"""The int8 graphs: `frozen.onnx` with the source folded in, `forward.onnx` with scales and biases as inputs.

Convolutions carry their norm as weight scale and bias (`adapters/folding.py`) and their ReLU as saturation at the
output's zero point. Operators without an integer form run in float between a dequantize and a quantize.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.folding import Folding, fold
from acclimate.export.activations import MOVERS, ActivationPlan
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Graph, Node, Value, pruned
from acclimate.export.onnx_format import CONTRIB
from acclimate.export.passes.sites import SITE, Adaptable
from acclimate.export.weights import QuantizedWeight

SCALE, BIAS = "scale", "bias"
SiteTensors = Callable[[int], tuple[str, str]]


@dataclass(frozen=True)
class _Fused:
    """A node with the site and the ReLU it absorbs; `output` is the last one's."""

    node: Node
    site: int | None
    output: str


@dataclass(frozen=True)
class _Emission:
    """The graph being written, and what its choices rest on.

    `quantized` names the uint8 form of the tensors that have one; `reals` are those of them with a float form too.
    """

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


def fold_arrays(
    model: Adaptable, weights: Mapping[str, QuantizedWeight], plan: ActivationPlan
) -> dict[str, NDArray[np.float32]]:
    """`weight_scale`, `input_scale` and `offset`, `[S]` each in site order, for `Folding.of`.

    Raises:
        UnsupportedModel: a site's input is not a convolution that it alone reads.
    """
    producers, consumers = model.graph.producers(), model.graph.consumers()
    columns: dict[str, list[NDArray[np.float32]]] = {"weight_scale": [], "input_scale": [], "offset": []}
    for node in model.graph.nodes:
        if node.op != SITE:
            continue
        site = model.sites[node.attributes["site"]]
        convolution = producers.get(node.inputs[0])
        if convolution is None or convolution.op != "Conv" or len(consumers[node.inputs[0]]) > 1:
            raise UnsupportedModel(
                f"norm {site.name!r} does not follow a convolution of its own; leave it out with `sites`"
            )
        bias = model.graph.constants[convolution.inputs[2]] if len(convolution.inputs) > 2 else 0.0
        shape = (site.channels,)
        columns["weight_scale"].append(weights[convolution.inputs[1]].scale)
        columns["input_scale"].append(np.full(shape, plan.scales[convolution.inputs[0]].scale, np.float32))
        columns["offset"].append(np.broadcast_to(np.asarray(bias, np.float32), shape))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def forward_graph(model: Adaptable, weights: Mapping[str, QuantizedWeight], plan: ActivationPlan) -> Graph:
    """`forward.onnx`: inputs are the image, `scale [S]` float32 and `bias [S]` int32 as `fold` returns them."""
    channels = [site.channels for site in model.sites]
    names = {part: [f"{part}.{site.name}" for site in model.sites] for part in (SCALE, BIAS)}
    graph = model.graph.copy(())
    for part, dtype in ((SCALE, np.float32), (BIAS, np.int32)):
        graph.inputs[part] = graph.values[part] = Value(np.dtype(dtype), (sum(channels),))
        if len(channels) > 1:
            graph.add_many("Split", (part, graph.constant(np.array(channels, np.int64))), names[part], axis=0)
        else:
            graph.add("Identity", (part,), name=names[part][0])
    return _integer(model, graph, weights, plan, lambda site: (names[SCALE][site], names[BIAS][site]))


def frozen_graph(
    model: Adaptable, weights: Mapping[str, QuantizedWeight], plan: ActivationPlan, folding: Folding
) -> Graph:
    """`frozen.onnx`: the same graph with the source model's scales and biases as constants."""
    graph = model.graph.copy(())
    ends = np.cumsum([site.channels for site in model.sites])[:-1]
    scale, bias = (np.split(packed, ends) for packed in fold(folding, model.theta, model.stats))
    for site, s, b in zip(model.sites, scale, bias, strict=True):
        graph.constant(s, name=f"{SCALE}.{site.name}")
        graph.constant(b, name=f"{BIAS}.{site.name}")
    names = [site.name for site in model.sites]
    return _integer(model, graph, weights, plan, lambda site: (f"{SCALE}.{names[site]}", f"{BIAS}.{names[site]}"))


def _integer(
    model: Adaptable, graph: Graph, weights: Mapping[str, QuantizedWeight], plan: ActivationPlan, sites: SiteTensors
) -> Graph:
    quantized = {plan.direct: next(iter(model.graph.inputs))} if plan.direct else {}
    to = _Emission(graph, plan, weights, sites, quantized, set(quantized))
    for fused in _fused(model.graph):
        _EMIT.get(fused.node.op, _float)(fused, to)
    for name in graph.outputs:
        to.real(name)
    return pruned(graph)


def _fused(graph: Graph) -> list[_Fused]:
    """The nodes in order, each with the single-reader norm and ReLU that follow it."""
    consumers, absorbed, result = graph.consumers(), set[str](), list[_Fused]()
    for node in graph.nodes:
        if node.output in absorbed:
            continue
        output, site = node.output, None
        for follower in (SITE, "Relu"):
            readers = consumers.get(output, [])
            allowed = ("Conv",) if follower == SITE else ("Conv", "Add")
            if node.op in allowed and len(readers) == 1 and readers[0].op == follower:
                output = readers[0].output
                absorbed.add(output)
                site = readers[0].attributes["site"] if follower == SITE else site
        result.append(_Fused(node, site, output))
    return result


def _conv(fused: _Fused, to: _Emission) -> None:
    node = fused.node
    weight = to.weights.get(node.inputs[1])
    if weight is None:
        _float(fused, to)
        return
    values = to.graph.constant(weight.values, name=f"{node.inputs[1]}.int8")
    zeros = to.graph.constant(np.zeros(len(weight.scale), np.int8))
    image = to.integer(node.inputs[0])
    if fused.site is not None:
        scale, bias = to.site_tensors(fused.site)
    else:
        scale, bias = _constant_scales(node, weight, to)
    attributes = {key: value for key, value in node.attributes.items() if key != "auto_pad"}
    inputs = (*image, values, scale, zeros, *to.scale(fused.output), bias)
    to.quantized[fused.output] = to.graph.add("QLinearConv", inputs, name=f"{fused.output}.q", **attributes)


def _constant_scales(node: Node, weight: QuantizedWeight, to: _Emission) -> tuple[str, str]:
    """Scale and int32 bias of a convolution or Gemm without a norm."""
    unit = to.plan.scales[node.inputs[0]].scale * weight.scale.astype(np.float64)
    real = to.graph.constants[node.inputs[2]] if len(node.inputs) > 2 else np.zeros(len(unit))
    bias = np.clip(np.rint(real / unit), -(2**30), 2**30).astype(np.int32)
    return to.graph.constant(weight.scale, name=f"{node.inputs[1]}.scale"), to.graph.constant(bias)


def _add(fused: _Fused, to: _Emission) -> None:
    left, right = fused.node.inputs
    if left not in to.plan.scales or right not in to.plan.scales or to.graph.shape(left) != to.graph.shape(right):
        _float(fused, to)
        return
    inputs = (*to.integer(left), *to.integer(right), *to.scale(fused.output))
    name = f"{fused.output}.q"
    to.quantized[fused.output] = to.graph.add("QLinearAdd", inputs, name=name, domain=CONTRIB)


def _global_average_pool(fused: _Fused, to: _Emission) -> None:
    inputs = (*to.integer(fused.node.inputs[0]), *to.scale(fused.output))
    name = f"{fused.output}.q"
    to.quantized[fused.output] = to.graph.add(
        "QLinearGlobalAveragePool", inputs, name=name, domain=CONTRIB, channels_last=0
    )


def _gemm(fused: _Fused, to: _Emission) -> None:
    """Integer products with a float result: what follows a classifier's last layer wants its full range."""
    node = fused.node
    weight = to.weights.get(node.inputs[1])
    plain = all(float(node.attributes.get(key, 1.0)) == 1.0 for key in ("alpha", "beta"))
    if weight is None or weight.axis != 0 or not plain or node.attributes.get("transA", 0):
        _float(fused, to)
        return
    values = to.graph.constant(weight.values, name=f"{node.inputs[1]}.int8")
    zeros = to.graph.constant(np.zeros(len(weight.scale), np.int8))
    scale, bias = _constant_scales(node, weight, to)
    inputs = (*to.integer(node.inputs[0]), values, scale, zeros, bias)
    to.graph.add("QGemm", inputs, name=fused.output, domain=CONTRIB, transB=1)


def _move(fused: _Fused, to: _Emission) -> None:
    node = fused.node
    if node.inputs[0] not in to.quantized or (node.op == "Pad" and not _pads_zeros(node, to.graph)):
        _float(fused, to)
        return
    rest = list(node.inputs[1:])
    if node.op == "Pad":
        rest[1:2] = [to.scale(node.inputs[0])[1]]
    inputs = (to.quantized[node.inputs[0]], *rest)
    to.quantized[fused.output] = to.graph.add(node.op, inputs, name=f"{fused.output}.q", **node.attributes)


def _pads_zeros(node: Node, graph: Graph) -> bool:
    value = node.inputs[2] if len(node.inputs) > 2 else ""
    return node.attributes.get("mode", "constant") == "constant" and not (value and np.any(graph.constants[value]))


def _float(fused: _Fused, to: _Emission) -> None:
    """The operator as it is, over dequantized weights and activations."""
    node = fused.node
    if fused.site is not None or node.op == SITE:
        raise UnsupportedModel(f"norm at {fused.output!r} has no integer form; leave it out with `sites`")
    for name in node.inputs:
        if name in to.weights:
            weight = to.weights[name]
            values = to.graph.constant(weight.values, name=f"{name}.int8")
            scale = to.graph.constant(weight.scale, name=f"{name}.scale")
            if to.graph.constants.pop(name, None) is not None:
                to.graph.add("DequantizeLinear", (values, scale), name=name, axis=weight.axis)
    inputs = [to.real(name) if name else "" for name in node.inputs]
    to.graph.nodes.append(Node(node.op, tuple(inputs), node.outputs, node.attributes, node.domain))
    if fused.output != node.output:
        to.graph.add("Relu", (node.output,), name=fused.output)


_EMIT: dict[str, Callable[[_Fused, _Emission], None]] = {
    "Conv": _conv,
    "Add": _add,
    "GlobalAveragePool": _global_average_pool,
    "Gemm": _gemm,
    **dict.fromkeys(MOVERS, _move),
}
