"""The int8 graphs: `frozen.onnx` with the source folded in, `forward.onnx` with one session's numbers as inputs.

Convolutions carry their norm as weight scale and bias (`adapters/folding.py`) and their ReLU as saturation at the
output's zero point. Operators without an integer form run in float between a dequantize and a quantize, and so do
norms that no convolution carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.folding import FOLD_ARRAYS, Folding, fold
from acclimate.adapters.manifest import Site
from acclimate.export.activations import ActivationPlan
from acclimate.export.backward.vjp import STATS, THETA
from acclimate.export.emission import Emission, folded_sites, fused
from acclimate.export.graph import Graph, Value, pruned
from acclimate.export.integer_ops import EMIT, in_float
from acclimate.export.integer_updates import with_updates_behind_norms, without_updates
from acclimate.export.passes.sites import SITE, Adaptable
from acclimate.export.weights import QuantizedWeight

SCALE, BIAS = "scale", "bias"


def fold_arrays(
    model: Adaptable, weights: Mapping[str, QuantizedWeight], plan: ActivationPlan
) -> dict[str, NDArray[np.float32]]:
    """`weight_scale`, `input_scale` and `offset`, `[S]` each over the folded sites in order, for `Folding.of`."""
    model = without_updates(model)
    producers, folded = model.graph.producers(), folded_sites(model.graph)
    columns = {name: [np.empty(0, np.float32)] for name in FOLD_ARRAYS}
    for node in model.graph.nodes:
        if node.op != SITE or node.attributes["site"] not in folded:
            continue
        site, convolution = model.sites[node.attributes["site"]], producers[node.inputs[0]]
        bias = model.graph.constants[convolution.inputs[2]] if len(convolution.inputs) > 2 else 0.0
        shape = (site.channels,)
        columns["weight_scale"].append(weights[convolution.inputs[1]].scale)
        columns["input_scale"].append(np.full(shape, plan.scales[convolution.inputs[0]].scale, np.float32))
        columns["offset"].append(np.broadcast_to(np.asarray(bias, np.float32), shape))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def folded(model: Adaptable) -> tuple[Site, ...]:
    """The sites whose channels `scale` and `bias` pack, in that order."""
    indices = folded_sites(without_updates(model).graph)
    return tuple(site for index, site in enumerate(model.sites) if index in indices)


def forward_graph(model: Adaptable, weights: Mapping[str, QuantizedWeight], plan: ActivationPlan) -> Graph:
    """`forward.onnx`: the sample, and of one session what the model has use for.

    `scale [S]` float32 and `bias [S]` int32 as `fold` returns them, for the norms that a convolution carries;
    `theta [P]` and `stats [Q]` float32, for what runs in float: other norms, low-rank updates, biases.
    """
    model, plan = with_updates_behind_norms(model, plan)
    graph = model.graph.copy(())
    sites = folded(model)
    for part, dtype in ((SCALE, np.float32), (BIAS, np.int32)):
        sizes = {f"{part}.{site.name}": site.channels for site in sites}
        split_packed(graph, part, np.dtype(dtype), sizes)
    for part, layout in ((THETA, model.parameters), (STATS, model.statistics)):
        split_packed(graph, part, np.dtype(np.float32), {entry.name: entry.size for entry in layout.slices})
    result = _integer(model, graph, weights, plan)
    read = {name for node in result.nodes for name in node.inputs}
    result.inputs = {n: value for n, value in result.inputs.items() if n in model.graph.inputs or n in read}
    return result


def split_packed(graph: Graph, part: str, dtype: np.dtype[Any], sizes: Mapping[str, int]) -> None:
    """An input that packs tensors, and the tensors: slices of it, so that the unread ones cost nothing."""
    graph.inputs[part] = graph.values[part] = Value(dtype, (sum(sizes.values()),))
    if len(sizes) > 1 and part in (SCALE, BIAS):
        graph.add_many("Split", (part, graph.constant(np.array([*sizes.values()], np.int64))), [*sizes], axis=0)
        return
    start = 0
    for name, size in sizes.items():
        ends = (graph.constant(np.array([place], np.int64)) for place in (start, start + size))
        graph.add("Slice", (part, *ends), name=name)
        start += size


def frozen_graph(
    model: Adaptable, weights: Mapping[str, QuantizedWeight], plan: ActivationPlan, folding: Folding
) -> Graph:
    """`frozen.onnx`: the same graph with the source model's numbers as constants, and without updates."""
    model = without_updates(model)
    graph = model.graph.copy(())
    sites = folded(model)
    ends = np.cumsum([site.channels for site in sites])[:-1]
    scale, bias = (np.split(packed, ends) for packed in fold(folding, model.theta, model.stats))
    for site, s, b in zip(sites, scale, bias, strict=bool(sites)):
        graph.constant(s, name=f"{SCALE}.{site.name}")
        graph.constant(b, name=f"{BIAS}.{site.name}")
    graph.constants |= model.parameters.unpack(model.theta) | model.statistics.unpack(model.stats)
    return _integer(model, graph, weights, plan)


def _integer(model: Adaptable, graph: Graph, weights: Mapping[str, QuantizedWeight], plan: ActivationPlan) -> Graph:
    quantized = {plan.direct: next(iter(model.graph.inputs))} if plan.direct else {}
    names = [site.name for site in model.sites]

    def site_tensors(index: int) -> tuple[str, str]:
        return f"{SCALE}.{names[index]}", f"{BIAS}.{names[index]}"

    to = Emission(model, graph, plan, weights, site_tensors, quantized, set(quantized))
    for part in fused(model.graph):
        EMIT.get(part.node.op, in_float)(part, to)
    for name in graph.outputs:
        to.real(name)
    return pruned(graph)
