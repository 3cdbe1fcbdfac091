"""The four graphs of a bundle, from one adaptable model, one set of integer weights and one set of ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from acclimate.adapters.folding import Folding
from acclimate.adapters.manifest import FORWARD_FILE, FROZEN_FILE, OBSERVE_FILE, VJP_FILE, WEIGHTS_FILE
from acclimate.export.activations import ActivationPlan, planned_scales
from acclimate.export.backward.vjp import observe_graph, vjp_graph
from acclimate.export.graph import Array, Graph
from acclimate.export.integer import fold_arrays, folded, forward_graph, frozen_graph
from acclimate.export.onnx_format import to_onnx
from acclimate.export.passes.sites import Adaptable, at_source
from acclimate.export.ranges import Range, measured_ranges
from acclimate.export.session import first_output, session
from acclimate.export.shared_weights import shared_weights
from acclimate.export.variants import variants
from acclimate.export.weights import QuantizedWeight, quantized_weights, stored_in_int8

ROWS_PAY = 2.0
"""Scales per row cost a twelfth of a transformer's time; they are taken where calibrated ones err this much more."""
_PROBES = 64


@dataclass(frozen=True)
class Quantized:
    """A model with its integer weights, its float graph at the source, and that graph's measured ranges.

    `rows`: its products by frozen matrices measure a scale for every row (`row_products.py`).
    """

    model: Adaptable
    weights: Mapping[str, QuantizedWeight]
    source: Graph
    ranges: Mapping[str, Range]
    rows: bool = False

    @classmethod
    def of(cls, model: Adaptable, inputs: Array, headroom: float = 1.5) -> Quantized:
        """Quantize the weights, and measure activations on calibration inputs `[N, ...]`.

        Models with products by frozen matrices are tried with calibrated scales and with scales per row.
        """
        source = at_source(model)
        found = cls(model, quantized_weights(model.graph), source, measured_ranges(source, inputs))
        if not any(node.op == "MatMul" and node.inputs[1] in found.weights for node in model.graph.nodes):
            return found
        probes = inputs[:_PROBES]
        expected = first_output(session(source), probes)
        by_rows = replace(found, rows=True)
        static, rows = (
            float(np.linalg.norm(first_output(session(tried.frozen(headroom)), probes) - expected))
            for tried in (found, by_rows)
        )
        return by_rows if static > ROWS_PAY * rows else found

    def plan(self, headroom: float) -> tuple[ActivationPlan, Folding]:
        """Activation scales for a headroom, and how sites fold under them."""
        model, plan = self.model, planned_scales(self.model.graph, self.ranges, headroom)
        arrays = fold_arrays(model, self.weights, plan)
        return replace(plan, rows=self.rows), Folding.of(folded(model), model.parameters, model.statistics, arrays)

    def frozen(self, headroom: float) -> Graph:
        """`frozen.onnx` alone."""
        plan, folding = self.plan(headroom)
        return frozen_graph(self.model, self.weights, plan, folding)


@dataclass(frozen=True)
class BundleGraphs:
    """The graphs that are written, and the folding that `forward` expects; `others` are those of more precisions."""

    frozen: Graph
    forward: Graph
    vjp: Graph
    observe: Graph
    folding: Folding
    others: Mapping[str, Graph] = field(default_factory=dict)

    @classmethod
    def of(cls, quantized: Quantized, headroom: float, precisions: Sequence[str] = ()) -> BundleGraphs:
        """Derive them all.

        Raises:
            UnsupportedModel: an operator has no backward rule.
        """
        model, weights = quantized.model, quantized.weights
        plan, folding = quantized.plan(headroom)
        vjp = vjp_graph(model)
        return cls(
            frozen=frozen_graph(model, weights, plan, folding),
            forward=forward_graph(model, weights, plan),
            vjp=stored_in_int8(vjp, weights),
            observe=stored_in_int8(observe_graph(vjp), weights),
            folding=folding,
            others={name: graph for kind in precisions for name, graph in variants(model, weights, kind).items()},
        )

    def by_file(self) -> dict[str, Graph]:
        """Graphs by file name."""
        return {
            FROZEN_FILE: self.frozen,
            FORWARD_FILE: self.forward,
            VJP_FILE: self.vjp,
            OBSERVE_FILE: self.observe,
            **self.others,
        }

    def serialized(self) -> dict[str, bytes]:
        """The ONNX files by name, and the file of what they share."""
        shared = shared_weights(self.by_file().values())
        files = {
            name: to_onnx(graph, name.removesuffix(".onnx"), places=shared.places).SerializeToString()
            for name, graph in self.by_file().items()
        }
        return files | ({WEIGHTS_FILE: shared.content} if shared.places else {})
