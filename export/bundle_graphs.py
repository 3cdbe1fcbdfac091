"""The four graphs of a bundle, from one adaptable model, one set of integer weights and one set of ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acclimate.adapters.folding import Folding
from acclimate.adapters.manifest import FORWARD_FILE, FROZEN_FILE, VJP_FILE
from acclimate.export.activations import ActivationPlan, planned_scales
from acclimate.export.backward.vjp import observe_graph, vjp_graph
from acclimate.export.graph import Array, Graph
from acclimate.export.integer import fold_arrays, folded, forward_graph, frozen_graph
from acclimate.export.onnx_format import to_onnx
from acclimate.export.passes.sites import Adaptable, at_source
from acclimate.export.ranges import Range, measured_ranges
from acclimate.export.weights import QuantizedWeight, quantized_weights, stored_in_int8

OBSERVE_FILE = "observe.onnx"


@dataclass(frozen=True)
class Quantized:
    """A model with its integer weights, its float graph at the source, and that graph's measured ranges."""

    model: Adaptable
    weights: Mapping[str, QuantizedWeight]
    source: Graph
    ranges: Mapping[str, Range]

    @classmethod
    def of(cls, model: Adaptable, inputs: Array) -> Quantized:
        """Quantize the weights, and measure activations on calibration inputs `[N, ...]`."""
        source = at_source(model)
        return cls(model, quantized_weights(model.graph), source, measured_ranges(source, inputs))

    def plan(self, headroom: float) -> tuple[ActivationPlan, Folding]:
        """Activation scales for a headroom, and how sites fold under them."""
        model, plan = self.model, planned_scales(self.model.graph, self.ranges, headroom)
        arrays = fold_arrays(model, self.weights, plan)
        return plan, Folding.of(folded(model), model.parameters, model.statistics, arrays)

    def frozen(self, headroom: float) -> Graph:
        """`frozen.onnx` alone."""
        plan, folding = self.plan(headroom)
        return frozen_graph(self.model, self.weights, plan, folding)


@dataclass(frozen=True)
class BundleGraphs:
    """The graphs that are written, and the folding that `forward` expects."""

    frozen: Graph
    forward: Graph
    vjp: Graph
    observe: Graph
    folding: Folding

    @classmethod
    def of(cls, quantized: Quantized, headroom: float) -> BundleGraphs:
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
        )

    def by_file(self) -> dict[str, Graph]:
        """Graphs by file name."""
        return {
            FROZEN_FILE: self.frozen,
            FORWARD_FILE: self.forward,
            VJP_FILE: self.vjp,
            OBSERVE_FILE: self.observe,
        }

    def serialized(self) -> dict[str, bytes]:
        """ONNX files by name."""
        return {
            name: to_onnx(graph, name.partition(".")[0]).SerializeToString() for name, graph in self.by_file().items()
        }
