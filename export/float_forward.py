"""The forward pass of one session in float, for the precisions of `precision.py`: no activation is an integer.

GPUs have no kernels for the integer convolutions of `forward.onnx`. Batch norms become one product and one sum whose
factors are computed from a few numbers per channel, in float32.
"""

from __future__ import annotations

import numpy as np

from acclimate.export.activations import ActivationPlan
from acclimate.export.backward.vjp import STATS, THETA
from acclimate.export.emission import Emission, Fused
from acclimate.export.graph import Graph, Node, pruned
from acclimate.export.integer import split_packed
from acclimate.export.integer_ops import EMIT
from acclimate.export.passes.affines import PARAMETER
from acclimate.export.passes.biases import BIAS_SITE
from acclimate.export.passes.low_rank import LOW_RANK
from acclimate.export.passes.sites import SITE, Adaptable


def float_forward(model: Adaptable) -> Graph:
    """Inputs: the sample, and of `theta [P]` and `stats [Q]` what the model has; output: the logits `[B, C]`."""
    graph = model.graph.copy(())
    for part, layout in ((THETA, model.parameters), (STATS, model.statistics)):
        split_packed(graph, part, np.dtype(np.float32), {entry.name: entry.size for entry in layout.slices})
    result = _written(model, graph)
    read = {name for node in result.nodes for name in node.inputs}
    result.inputs = {name: value for name, value in result.inputs.items() if name in model.graph.inputs or name in read}
    return result


def float_frozen(model: Adaptable) -> Graph:
    """The same at the source: the sample in, the logits out."""
    graph = model.graph.copy(())
    graph.constants |= model.parameters.unpack(model.theta) | model.statistics.unpack(model.stats)
    return _written(model, graph)


def _written(model: Adaptable, graph: Graph) -> Graph:
    # Nothing is quantized, so that what the integer graphs run in float is all that is written here.
    to = Emission(model, graph, ActivationPlan({}, None), {}, _no_site, {}, set())
    for node in model.graph.nodes:
        if node.op == SITE:
            _norm(node, to)
        elif node.op in (PARAMETER, BIAS_SITE, LOW_RANK):
            EMIT[node.op](Fused(node, None, node.output), to)
        else:
            graph.nodes.append(node)
    return pruned(graph)


def _norm(node: Node, to: Emission) -> None:
    """`x a + (beta - mean a)` with `a = gamma / sqrt(var + epsilon)`."""
    graph, site = to.graph, to.model.sites[node.attributes["site"]]
    rank = len(graph.shape(node.inputs[0]))
    channels = graph.constant(np.array([1, site.channels] + [1] * (rank - 2), np.int64))
    deviation = graph.add("Sqrt", (graph.add("Add", (site.var, graph.constant(site.epsilon, np.float32))),))
    gain = graph.add("Div", (site.scale, deviation))
    shift = graph.add("Sub", (site.shift, graph.add("Mul", (site.mean, gain))))
    gain, shift = (graph.add("Reshape", (name, channels)) for name in (gain, shift))
    graph.add("Add", (graph.add("Mul", (node.inputs[0], gain)), shift), name=node.output)


def _no_site(index: int) -> tuple[str, str]:
    raise AssertionError(f"site {index} has no integer scale here")
