"""A bundle's graphs in the other precisions that were asked for, and how far they are from float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from acclimate.adapters.manifest import FORWARD_FILE, FROZEN_FILE, OBSERVE_FILE, VJP_FILE, in_precision_file
from acclimate.export.backward.vjp import COTANGENT, GRAD_THETA, observe_graph, vjp_graph
from acclimate.export.errors import ExportError, VerificationError
from acclimate.export.float_forward import float_forward, float_frozen
from acclimate.export.graph import Array, Graph
from acclimate.export.passes.sites import Adaptable
from acclimate.export.precision import PRECISIONS, in_precision
from acclimate.export.session import run, session
from acclimate.export.statistics import rows_of_one
from acclimate.export.weights import QuantizedWeight, stored_in_int8

_PROBES = 16


@dataclass(frozen=True, slots=True)
class PrecisionErrors:
    """Relative errors of logits and gradients against the float32 graph, and what is tolerated.

    A half has 11 bits of precision and a bfloat16 8, and each layer rounds: the limits are what tells rounding from a
    mistake, not a promise. `emulated`: every result was rounded as a kernel would, by ONNX Runtime on the CPU, which
    has no bfloat16 kernels.
    """

    logits: float
    gradients: float
    emulated: bool
    logits_limit: float
    gradients_limit: float


_LIMITS = {"fp16": (0.02, 0.05), "bf16": (0.1, 0.25)}


def checked_precisions(names: Sequence[str]) -> tuple[str, ...]:
    """The names without repetitions.

    Raises:
        ExportError: one is not known.
    """
    if unknown := [name for name in names if name not in PRECISIONS]:
        raise ExportError(f"precision: {unknown[0]!r} is not known; choose from {sorted(PRECISIONS)}")
    return tuple(dict.fromkeys(names))


def variants(model: Adaptable, weights: Mapping[str, QuantizedWeight], precision: str) -> dict[str, Graph]:
    """Frozen, forward, VJP and observe graphs, by file name, over the same int8 weights."""
    vjp = vjp_graph(model)
    graphs = {
        FROZEN_FILE: float_frozen(model),
        FORWARD_FILE: float_forward(model),
        VJP_FILE: vjp,
        OBSERVE_FILE: observe_graph(vjp),
    }
    return {
        in_precision_file(name, precision): stored_in_int8(in_precision(graph, precision), weights)
        for name, graph in graphs.items()
    }


def precision_errors(
    model: Adaptable, weights: Mapping[str, QuantizedWeight], precision: str, inputs: Array
) -> PrecisionErrors:
    """Compare `vjp.onnx` in a precision with the one in float32, at the source, on calibration inputs.

    Raises:
        VerificationError: they are further apart than rounding explains.
    """
    emulated = precision == "bf16"
    vjp, size = vjp_graph(model), min(_PROBES, len(inputs))
    (image,), (logits, value) = model.graph.inputs, next(iter(model.graph.outputs.items()))
    cotangent = np.random.default_rng(0).standard_normal((size, value.shape[1])).astype(np.float32)
    feeds = rows_of_one(model, size, alpha=0.0) | {image: inputs[:size], COTANGENT: cotangent}
    expected, got = (
        run(session(stored_in_int8(graph, weights)), feeds)
        for graph in (vjp, in_precision(vjp, precision, emulated=emulated))
    )
    limits = _LIMITS[precision]
    apart = [_distance(got[name], expected[name]) for name in (logits, GRAD_THETA)]
    errors = PrecisionErrors(apart[0], apart[1], emulated, *limits)
    for what, error, limit in zip(("logits", "gradients"), (errors.logits, errors.gradients), limits, strict=True):
        if not error <= limit:
            advice = f"leave --precision {precision} out for this model"
            raise VerificationError(f"error of the {precision} {what} against float32", error, limit, advice)
    return errors


def _distance(got: Array, expected: Array) -> float:
    """`|got - expected| / |expected|`, infinite where something is not finite."""
    if not np.isfinite(got).all():
        return float("inf")
    return float(np.linalg.norm(got - expected) / max(float(np.linalg.norm(expected)), 1e-30))
