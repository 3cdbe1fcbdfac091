"""What sessions adapt becomes slices of theta; batch normalisations become sites with slices of stats besides.

Requires: a simplified graph. Ensures: every matched BatchNormalization is a `NormSite` node with the single
input it normalises and the attribute `site`, an index into `Adaptable.sites`; the others are folded into
the convolution before them, and stay as they are where there is none. `affines.py` says what becomes of other norms,
`low_rank.py` of weights, `biases.py` of biases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.layout import Float, Kind, Layout
from acclimate.adapters.manifest import Site
from acclimate.export.adaptation import Adaptation, Biases, LowRank, Norms, matches
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Array, Graph, Node, pruned
from acclimate.export.passes.affines import PARAMETER, Affine, Affines, with_affines
from acclimate.export.passes.biases import BIAS_SITE, BiasSite, with_biases
from acclimate.export.passes.low_rank import LOW_RANK, Update, with_low_rank
from acclimate.export.passes.pictures import with_pictures
from acclimate.export.passes.rows import in_rows

SITE = "NormSite"
_MEAN = ".running_mean"


@dataclass(frozen=True)
class Adaptable:
    """A graph that reads `theta` and `stats` instead of constants, and what the source model has there.

    `sites` are the batch norms, which alone have statistics; `affines` the norms of other kinds; `updates` the
    low-rank updates of weights and `biases` the biases, both in the order of their layers.
    """

    graph: Graph
    sites: tuple[Site, ...]
    affines: tuple[Affine, ...]
    parameters: Layout
    statistics: Layout
    theta: Float
    stats: Float
    updates: tuple[Update, ...] = ()
    biases: tuple[BiasSite, ...] = ()

    @property
    def places(self) -> int:
        """How many norms, weights and biases sessions adapt."""
        return len(self.sites) + len(self.affines) + len(self.updates) + len(self.biases)


@dataclass(frozen=True)
class _Norms:
    """A graph whose norms are lifted or folded."""

    sites: tuple[Site, ...]
    others: Affines
    tensors: dict[str, Array]


def with_sites(graph: Graph, patterns: Sequence[str] = ("*",), adapt: Sequence[Adaptation] = (Norms(),)) -> Adaptable:
    """Lift what `adapt` names; of the norms those whose module name matches one of the glob `patterns`.

    Raises:
        UnsupportedModel: something matches nothing, one module normalises twice, or a norm's inputs are no constants.
    """
    updated = with_low_rank(with_pictures(graph), [part for part in adapt if isinstance(part, LowRank)])
    lifted = with_biases(updated.graph, [part for part in adapt if isinstance(part, Biases)])
    wanted = any(isinstance(part, Norms) for part in adapt)
    norms = _with_norms(lifted.graph, patterns if wanted else (), required=wanted)
    parameters, statistics = _layouts(norms, updated.updates, lifted.sites, updated.tensors)
    tensors = norms.tensors | norms.others.tensors | updated.tensors | lifted.tensors
    theta = parameters.pack({entry.name: tensors[entry.name] for entry in parameters.slices})
    stats = statistics.pack({entry.name: tensors[entry.name] for entry in statistics.slices})
    if not theta.any():
        # Guards measure how far a session went in units of the source's own length.
        raise UnsupportedModel("adapt: every adapted parameter is zero at the source; adapt norms or weights besides")
    found = norms.sites, norms.others.lifted, parameters, statistics, theta, stats, updated.updates, lifted.sites
    return Adaptable(norms.others.graph, *found)


def _with_norms(graph: Graph, patterns: Sequence[str], *, required: bool) -> _Norms:
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
        if not matches(name, patterns):
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
    if required and not sites and not others.lifted:
        raise UnsupportedModel(
            f"no adaptable norm matches {list(patterns)}; the model's norms are {[*seen, *others.seen] or 'none'}"
        )
    return _Norms(tuple(sites), others, tensors)


def _layouts(
    norms: _Norms, updates: Sequence[Update], biases: Sequence[BiasSite], tensors: Mapping[str, Array]
) -> tuple[Layout, Layout]:
    """The layouts of theta and of stats: batch norms, other norms, low-rank updates, biases."""
    affine: list[tuple[str, Kind, tuple[int, ...]]] = []
    moments: list[tuple[str, Kind, tuple[int, ...]]] = []
    for site in norms.sites:
        shape = (site.channels,)
        affine += [(site.scale, "norm.scale", shape), (site.shift, "norm.shift", shape)]
        moments += [(site.mean, "norm.mean", shape), (site.var, "norm.var", shape)]
    for other in norms.others.lifted:
        affine.append((other.scale, "norm.scale", (other.channels,)))
        if other.shift is not None:
            affine.append((other.shift, "norm.shift", (other.channels,)))
    for update in updates:
        a, b = update.lora.a, update.lora.b
        affine += [(a, "lora.A", tensors[a].shape), (b, "lora.B", tensors[b].shape)]
    affine += [(bias.slice, "bias", (bias.channels,)) for bias in biases]
    return Layout.of(affine), Layout.of(moments)


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
    """Replace a frozen norm's convolution by one with scaled weights and a bias, and scale its update alike."""
    makers = {name: maker for maker in graph.nodes for name in maker.outputs}
    maker = makers.get(node.inputs[0])
    update = maker if maker is not None and maker.op == LOW_RANK else None
    convolution = maker if update is None else makers[update.inputs[0]]
    if convolution is None or convolution.op != "Conv":
        graph.nodes.append(node)
        return
    gamma, beta, mean, var = (graph.constants[name].astype(np.float64) for name in node.inputs[1:])
    gain = gamma / np.sqrt(var + float(node.attributes.get("epsilon", 1e-5)))
    weight = graph.constants[convolution.inputs[1]]
    bias = graph.constants[convolution.inputs[2]] if len(convolution.inputs) > 2 else np.zeros(len(gain))
    names = (f"{convolution.inputs[1]}.folded", f"{convolution.inputs[1]}.shift")
    graph.constants[names[0]] = (weight * gain[:, None, None, None]).astype(np.float32)
    graph.constants[names[1]] = (beta + (bias - mean) * gain).astype(np.float32)
    # The unfolded results may have other readers; the pruning that follows removes them where they have none.
    output = node.outputs[0] if update is None else graph.fresh("frozen")
    graph.nodes.append(Node("Conv", (convolution.inputs[0], *names), (output,), convolution.attributes))
    if update is not None:
        graph.values[output] = graph.values[node.outputs[0]]
        attributes = {**update.attributes, "factor": update.attributes["factor"] * gain}
        graph.nodes.append(Node(LOW_RANK, (output, update.inputs[1]), node.outputs[:1], attributes))


def at_source(model: Adaptable) -> Graph:
    """The plain float graph of the source model: sites are BatchNormalizations again, parameters constants."""
    graph = model.graph.copy(())
    graph.constants |= model.parameters.unpack(model.theta) | model.statistics.unpack(model.stats)
    for node in model.graph.nodes:
        if node.op == PARAMETER:
            array = graph.constants[node.attributes["slice"]]
            graph.constants[node.output] = array.reshape(1, *node.attributes["view"])
        elif node.op == LOW_RANK:
            # B is zero; both tensors keep their names, for both have ranges to be measured.
            graph.nodes.append(Node("Identity", node.inputs[:1], node.outputs))
        elif node.op == BIAS_SITE:
            array = graph.constants[node.attributes["slice"]].reshape(node.attributes["view"])
            graph.nodes.append(Node("Add", (node.inputs[0], graph.constant(array)), node.outputs))
        elif node.op == SITE:
            site = model.sites[node.attributes["site"]]
            inputs = (node.inputs[0], site.scale, site.shift, site.mean, site.var)
            graph.nodes.append(Node("BatchNormalization", inputs, node.outputs, {"epsilon": site.epsilon}))
        else:
            graph.nodes.append(node)
    return graph


def over_rows(model: Adaptable) -> Adaptable:
    """The same model with updates and biases in plain operators (`rows.py`), as reverse mode reads it."""
    return replace(model, graph=in_rows(model.graph))
