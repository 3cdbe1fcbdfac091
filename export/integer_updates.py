"""Low-rank updates and biases in the integer graphs.

The layer itself stays on integers; its update runs in float beside it, at the session's slices of theta, and is added
to the layer's dequantized answer. Where a batch norm follows that the convolution carries, the sum is taken behind the
norm, with B scaled by the norm's gain: normalising in float instead would cost one more pass over the map, and the
convolution its folded scale. `frozen.onnx` has no updates, for B is zero there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from acclimate.export.activations import ActivationPlan
from acclimate.export.emission import Emission, Fused, folded_sites
from acclimate.export.graph import Graph, Node
from acclimate.export.passes.low_rank import LOW_RANK, without_low_rank
from acclimate.export.passes.sites import SITE, Adaptable


def without_updates(model: Adaptable) -> Adaptable:
    """The model at B = 0."""
    return replace(model, graph=without_low_rank(model.graph))


def with_updates_behind_norms(model: Adaptable, plan: ActivationPlan) -> tuple[Adaptable, ActivationPlan]:
    """Exchange an update and the norm behind it, where the convolution carries the norm.

    The update then has the attribute `site`. What the convolution answers gets the norm's range, and that is the
    sum's at the source.
    """
    carried = folded_sites(without_low_rank(model.graph))
    producers, graph, scales = model.graph.producers(), model.graph.copy(()), dict(plan.scales)
    moved: dict[str, Node] = {}
    for node in model.graph.nodes:
        maker = producers.get(node.inputs[0]) if node.op == SITE and node.attributes["site"] in carried else None
        if maker is not None and maker.op == LOW_RANK:
            moved[maker.output] = node
    placed = {norm.output for norm in moved.values()}
    for node in model.graph.nodes:
        if node.op == LOW_RANK and node.output in moved:
            norm = moved[node.output]
            plain = f"{norm.output}.frozen"
            graph.values[plain] = graph.values[norm.output]
            scales[plain] = scales[norm.output]
            graph.nodes.append(Node(SITE, node.inputs[:1], (plain,), norm.attributes))
            attributes = {**node.attributes, "site": norm.attributes["site"], "weight": _weight(node, producers)}
            graph.nodes.append(Node(LOW_RANK, (plain, node.inputs[1]), norm.outputs, attributes))
        elif node.op != SITE or node.output not in placed:
            graph.nodes.append(node)
    return replace(model, graph=graph), replace(plan, scales=scales)


def _weight(update: Node, producers: dict[str, Node]) -> str:
    return producers[update.inputs[0]].inputs[1]


def low_rank(fused: Fused, to: Emission) -> None:
    """The branch of an update, for all rows alike: ordinary weights cut from the session's theta."""
    node, graph = fused.node, to.graph
    base, x = (to.real(name) for name in node.inputs)
    a, b, attributes = node.attributes["a"], node.attributes["b"], node.attributes
    slices = {entry.name: entry.shape for entry in to.model.parameters.slices}
    down, up = (graph.add("Reshape", (name, _shape(slices[name], graph))) for name in (a, b))
    up = _scaled(node, up, len(slices[b]), to)
    if "conv" in attributes:
        branch = graph.add("Conv", (graph.add("Conv", (x, down), **attributes["conv"]), up))
    else:
        narrow = graph.add("MatMul", (x, graph.add("Transpose", (down,), perm=[1, 0])))
        branch = graph.add("MatMul", (narrow, graph.add("Transpose", (up,), perm=[1, 0])))
    graph.add("Add", (base, branch), name=node.output)


def _scaled(node: Node, b: str, rank: int, to: Emission) -> str:
    """B times its constant factor and the gain of the norm that it passes.

    `scale` of a folded site is that gain times the scale of the convolution's weights.
    """
    factor = np.asarray(node.attributes["factor"], np.float64)
    column = [-1] + [1] * (rank - 1)
    if "site" in node.attributes:
        factor = factor / to.weights[node.attributes["weight"]].scale
        scale = to.graph.add("Reshape", (to.site_tensors(node.attributes["site"])[0], _shape(column, to.graph)))
        b = to.graph.add("Mul", (b, scale))
    if np.all(factor == 1):
        return b
    constant = to.graph.constant(factor.reshape(column) if factor.ndim else factor, np.float32)
    return to.graph.add("Mul", (b, constant))


def bias(fused: Fused, to: Emission) -> None:
    """A bias in float, behind a layer whose answer is float."""
    node = fused.node
    name, view = node.attributes["slice"], [1, *node.attributes["view"]]
    if name in to.graph.constants:
        parameter = to.graph.constant(to.graph.constants[name].reshape(view))
    else:
        parameter = to.graph.add("Reshape", (name, _shape(view, to.graph)))
    to.graph.add("Add", (to.real(node.inputs[0]), parameter), name=node.output)


def bias_in_units(name: str, unit: np.ndarray, to: Emission) -> str:
    """A slice of theta as the int32 bias of an integer convolution, in units of its accumulator `[C]`.

    In double precision, so that a session at the source has the bits of `frozen.onnx`.
    """
    graph, limit = to.graph, 2.0**30
    if name in graph.constants:
        units = np.rint(graph.constants[name].astype(np.float64) / unit)
        return graph.constant(np.clip(units, -limit, limit).astype(np.int32))
    wide = graph.add("Cast", (name,), to=11)
    rounded = graph.add("Round", (graph.add("Div", (wide, graph.constant(unit, np.float64))),))
    limits = (graph.constant(end, np.float64) for end in (-limit, limit))
    return graph.add("Cast", (graph.add("Clip", (rounded, *limits)),), to=6)


def _shape(shape: tuple[int, ...] | list[int], graph: Graph) -> str:
    return graph.constant(np.array(shape, np.int64))
