"""Norms become adaptable: batch normalisations sites with slices of theta and of stats, others affines.

Requires: a simplified graph. Ensures: every matched BatchNormalization is a `NormSite` node with the single
input it normalises and the attribute `site`, an index into `Adaptable.sites`; the others are folded into
the convolution before them, and stay as they are where there is none. `affines.py` says what becomes of other norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from acclimate.adapters.layout import Float, Kind, Layout
from acclimate.adapters.manifest import Site
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Array, Graph, Node, pruned
from acclimate.export.passes.affines import PARAMETER, Affine, with_affines
from acclimate.export.passes.pictures import with_pictures

SITE = "NormSite"
_MEAN = ".running_mean"


@dataclass(frozen=True)
class Adaptable:
    """A graph whose norms read `theta` and `stats` instead of constants, and what the source model has there.

    `sites` are the batch norms, which alone have statistics; `affines` the norms of other kinds.
    """

    graph: Graph
    sites: tuple[Site, ...]
    affines: tuple[Affine, ...]
    parameters: Layout
    statistics: Layout
    theta: Float
    stats: Float


def with_sites(graph: Graph, patterns: Sequence[str] = ("*",)) -> Adaptable:
    """Lift the norms whose module name matches one of the glob patterns.

    Raises:
        UnsupportedModel: none matches, one module normalises twice, or its inputs are not constants.
    """
    graph = with_pictures(graph)
    result = graph.copy(())
    sites: list[Site] = []
    tensors: dict[str, Array] = {}
    seen: list[str] = []
    for node in graph.nodes:
        if node.op != "BatchNormalization":
            result.nodes.append(node)
            continue
        name = _module(node, graph)
        seen.append(name)
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            _fold_into_convolution(node, result)
            continue
        site = _site(name, node, graph)
        if site.scale in tensors:
            raise UnsupportedModel(f"norm {name!r} is applied twice; give each use a module of its own")
        tensors |= dict(
            zip(
                (site.scale, site.shift, site.mean, site.var),
                (graph.constants[i] for i in node.inputs[1:]),
                strict=True,
            )
        )
        result.nodes.append(Node(SITE, node.inputs[:1], node.outputs[:1], {"site": len(sites)}))
        sites.append(site)
    others = with_affines(pruned(result), patterns)
    if not sites and not others.lifted:
        raise UnsupportedModel(
            f"no adaptable norm matches {list(patterns)}; the model's norms are {[*seen, *others.seen] or 'none'}"
        )
    return _packed(others.graph, tuple(sites), others.lifted, tensors | others.tensors)


def _packed(graph: Graph, sites: tuple[Site, ...], affines: tuple[Affine, ...], tensors: dict[str, Array]) -> Adaptable:
    affine: list[tuple[str, Kind, tuple[int, ...]]] = []
    moments: list[tuple[str, Kind, tuple[int, ...]]] = []
    for site in sites:
        shape = (site.channels,)
        affine += [(site.scale, "norm.scale", shape), (site.shift, "norm.shift", shape)]
        moments += [(site.mean, "norm.mean", shape), (site.var, "norm.var", shape)]
    for other in affines:
        affine.append((other.scale, "norm.scale", (other.channels,)))
        if other.shift is not None:
            affine.append((other.shift, "norm.shift", (other.channels,)))
    parameters, statistics = Layout.of(affine), Layout.of(moments)
    theta = parameters.pack({entry.name: tensors[entry.name] for entry in parameters.slices})
    stats = statistics.pack({entry.name: tensors[entry.name] for entry in statistics.slices})
    return Adaptable(graph, sites, affines, parameters, statistics, theta, stats)


def _module(node: Node, graph: Graph) -> str:
    missing = [name for name in node.inputs[1:] if name not in graph.constants]
    if missing:
        raise UnsupportedModel(f"BatchNormalization {node.output!r}: {missing} are computed; constants are expected")
    return node.inputs[3].removesuffix(_MEAN) if node.inputs[3].endswith(_MEAN) else node.output


def _site(name: str, node: Node, graph: Graph) -> Site:
    return Site(
        name=name,
        channels=len(graph.constants[node.inputs[1]]),
        epsilon=float(node.attributes.get("epsilon", 1e-5)),
        scale=f"{name}.weight",
        shift=f"{name}.bias",
        mean=f"{name}.running_mean",
        var=f"{name}.running_var",
    )


def _fold_into_convolution(node: Node, graph: Graph) -> None:
    """Replace a frozen norm's convolution by one with scaled weights and a bias."""
    gamma, beta, mean, var = (graph.constants[name].astype(np.float64) for name in node.inputs[1:])
    position = next((i for i, n in enumerate(graph.nodes) if node.inputs[0] in n.outputs), None)
    convolution = graph.nodes[position] if position is not None else None
    if position is None or convolution is None or convolution.op != "Conv":
        graph.nodes.append(node)
        return
    gain = gamma / np.sqrt(var + float(node.attributes.get("epsilon", 1e-5)))
    weight = graph.constants[convolution.inputs[1]]
    bias = graph.constants[convolution.inputs[2]] if len(convolution.inputs) > 2 else np.zeros(len(gain))
    names = (f"{convolution.inputs[1]}.folded", f"{convolution.inputs[1]}.shift")
    graph.constants[names[0]] = (weight * gain[:, None, None, None]).astype(np.float32)
    graph.constants[names[1]] = (beta + (bias - mean) * gain).astype(np.float32)
    # The unfolded result may have other readers; the pruning that follows removes it where it has none.
    graph.nodes.append(Node("Conv", (convolution.inputs[0], *names), node.outputs[:1], convolution.attributes))


def at_source(model: Adaptable) -> Graph:
    """The plain float graph of the source model: sites are BatchNormalizations again, parameters constants."""
    graph = model.graph.copy(())
    graph.constants |= model.parameters.unpack(model.theta) | model.statistics.unpack(model.stats)
    for node in model.graph.nodes:
        if node.op == PARAMETER:
            array = graph.constants[node.attributes["slice"]]
            graph.constants[node.output] = array.reshape(1, *node.attributes["view"])
            continue
        if node.op != SITE:
            graph.nodes.append(node)
            continue
        site = model.sites[node.attributes["site"]]
        inputs = (node.inputs[0], site.scale, site.shift, site.mean, site.var)
        graph.nodes.append(Node("BatchNormalization", inputs, node.outputs, {"epsilon": site.epsilon}))
    return graph
