"""The graph of `vjp.onnx`: logits, batch statistics, and the vector-Jacobian product with respect to theta.

Only what theta needs is computed: no gradient of a frozen weight, and none below the first site.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from acclimate.adapters.manifest import Site
from acclimate.export.backward.norm_site import RowInputs, SiteInputs, SiteTape, site_backward, site_forward
from acclimate.export.backward.rules import RULES
from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.features import COTANGENT_FEATURES, FEATURES, last_linear
from acclimate.export.graph import BATCH, Graph, Node, Value, pruned
from acclimate.export.passes.affines import PARAMETER
from acclimate.export.passes.sites import SITE, Adaptable, over_rows

THETA, STATS, MIX, ALPHA, COTANGENT = "theta", "stats", "mix", "alpha", "cotangent"
GRAD_THETA, BATCH_STATS = "grad_theta", "batch_stats"


def vjp_graph(model: Adaptable) -> Graph:
    """Differentiate `model`.

    Inputs: the model's own, `theta [B, P]`, `stats [B, Q]`, `mix [B, B]`, `alpha [B]`, `cotangent [B, C]`.
    Outputs: the logits, `grad_theta [B, P]`, `batch_stats [B, Q]` (mean and biased variance of each row's group).
    A model with a last linear layer has the output `features [B, D]`, and the optional input `cotangent_features`.

    Raises:
        UnsupportedModel: an operator between theta and the logits has no backward rule.
    """
    model = over_rows(model)
    ((logits, value),) = model.graph.outputs.items()
    tape = Tape(_with_inputs(model, value), dependent_on_theta(model.graph.nodes))
    rows = _row_inputs(tape)
    columns = _columns(model, tape)
    saved: dict[int, SiteTape] = {}
    for node in model.graph.nodes:
        if node.op == PARAMETER:
            view = tape.integers(-1, *node.attributes["view"])
            tape.graph.add("Reshape", (columns[node.attributes["slice"]], view), name=node.output)
            continue
        if node.op != SITE:
            tape.graph.nodes.append(node)
            continue
        index = node.attributes["site"]
        site = model.sites[index]
        saved[index] = site_forward(node.inputs[0], _inputs(site, columns), rows, site.epsilon, node.output, tape)
    grads = _reverse(model, saved, rows, tape, {logits: [COTANGENT]} | _features(model, tape))
    _collect(GRAD_THETA, [grads[entry.name] for entry in model.parameters.slices], model.parameters.size, tape)
    # A model without batch norms has no statistics, and answers the empty ones it was given.
    moments = [name for index in sorted(saved) for name in (saved[index].group_mean, saved[index].group_var)] or [STATS]
    _collect(BATCH_STATS, moments, model.statistics.size, tape)
    return pruned(tape.graph)


def observe_graph(vjp: Graph) -> Graph:
    """`observe.onnx`: logits and batch statistics alone, for callers that have no cotangent yet.

    A graph of its own because ONNX Runtime 1.31 computes every node of a session whatever outputs are fetched,
    `RunOptions.only_execute_path_to_fetches` included.
    """
    graph = vjp.copy()
    del graph.outputs[GRAD_THETA]
    del graph.inputs[COTANGENT]
    graph.inputs.pop(COTANGENT_FEATURES, None)
    return pruned(graph)


def dependent_on_theta(nodes: Iterable[Node]) -> frozenset[str]:
    """The tensors that a change of theta reaches."""
    reached: set[str] = set()
    for node in nodes:
        if node.op in (SITE, PARAMETER) or reached.intersection(node.inputs):
            reached.update(node.outputs)
    return frozenset(reached)


def _reverse(
    model: Adaptable, saved: dict[int, SiteTape], rows: RowInputs, tape: Tape, pending: dict[str, list[str]]
) -> dict[str, str]:
    """Walk the nodes backwards; returns the gradient of every slice of theta, by name."""
    result: dict[str, str] = {}
    for node in reversed(model.graph.nodes):
        parts = pending.pop(node.output, None)
        if parts is None or node.output not in tape.dependent:
            continue
        grad = parts[0] if len(parts) == 1 else tape.add("Sum", *parts)
        if node.op == SITE:
            site = model.sites[node.attributes["site"]]
            gamma, beta, inner = site_backward(
                grad, saved[node.attributes["site"]], rows, tape, through=tape.wants(node, 0)
            )
            result |= {site.scale: gamma, site.shift: beta}
            inputs = {} if inner is None else {0: inner}
        elif node.op == PARAMETER:
            name = node.attributes["slice"]
            result[name] = tape.add("Reshape", grad, tape.integers(-1, math.prod(node.attributes["view"])))
            inputs = {}
        else:
            if node.op not in RULES or len(node.outputs) > 1:
                raise UnsupportedModel(
                    f"node {node.output!r}: operator {node.op} has no backward rule; see export/backward/rules.py"
                )
            inputs = dict(RULES[node.op](node, grad, tape))
        for position, name in inputs.items():
            pending.setdefault(node.inputs[position], []).append(name)
    missing = [entry.name for entry in model.parameters.slices if entry.name not in result]
    if missing:
        raise UnsupportedModel(f"the logits do not depend on {missing}; leave these sites out")
    return result


def _features(model: Adaptable, tape: Tape) -> dict[str, list[str]]:
    """Declare features and their cotangent; returns where the cotangent enters.

    An initializer of the input's name makes it optional: absent, it is a row of zeros for all rows.
    """
    layer = last_linear(model.graph)
    if layer is None:
        return {}
    value = Value(np.dtype(np.float32), (BATCH, layer.width))
    if layer.tensor != FEATURES:
        tape.graph.add("Identity", (layer.tensor,), name=FEATURES)
    tape.graph.values[FEATURES] = tape.graph.outputs[FEATURES] = value
    if layer.tensor not in tape.dependent:
        return {}
    tape.graph.values[COTANGENT_FEATURES] = tape.graph.inputs[COTANGENT_FEATURES] = value
    tape.graph.constant(np.zeros((1, layer.width), np.float32), name=COTANGENT_FEATURES)
    return {layer.tensor: [COTANGENT_FEATURES]}


def _with_inputs(model: Adaptable, logits: Value) -> Graph:
    graph = model.graph.copy(())
    single = np.dtype(np.float32)
    added = {
        THETA: Value(single, (BATCH, model.parameters.size)),
        STATS: Value(single, (BATCH, model.statistics.size)),
        MIX: Value(single, (BATCH, BATCH)),
        ALPHA: Value(single, (BATCH,)),
        COTANGENT: Value(single, logits.shape),
    }
    taken = set(added) & (set(graph.values) | set(graph.constants))
    if taken:
        raise UnsupportedModel(f"the model has tensors named {sorted(taken)}; rename them")
    graph.inputs |= added
    graph.values |= added
    return graph


def _row_inputs(tape: Tape) -> RowInputs:
    alpha = tape.add("Unsqueeze", ALPHA, tape.integers(1))
    back = tape.add("Transpose", MIX, perm=[1, 0])
    return RowInputs(MIX, back, alpha, tape.add("Sub", tape.number(1.0), alpha))


def _columns(model: Adaptable, tape: Tape) -> dict[str, str]:
    """Each slice of theta and stats as a tensor `[B, C]`, by slice name."""
    result: dict[str, str] = {}
    for source, layout in ((THETA, model.parameters), (STATS, model.statistics)):
        if not layout.slices:
            continue
        names = [f"{source}.{entry.name}" for entry in layout.slices]
        sizes = tape.integers(*(entry.size for entry in layout.slices))
        tape.graph.add_many("Split", (source, sizes), names, axis=1)
        result |= dict(zip((entry.name for entry in layout.slices), names, strict=True))
    return result


def _inputs(site: Site, columns: dict[str, str]) -> SiteInputs:
    return SiteInputs(columns[site.scale], columns[site.shift], columns[site.mean], columns[site.var])


def _collect(name: str, parts: list[str], size: int, tape: Tape) -> None:
    tape.graph.add("Concat", parts, name=name, axis=1)
    tape.graph.values[name] = Value(np.dtype(np.float32), (BATCH, size))
    tape.graph.outputs[name] = tape.graph.values[name]
