"""The checks a bundle must pass before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from acclimate.adapters.layout import Kind, Layout
from acclimate.export.backward.vjp import ALPHA, BATCH_STATS, COTANGENT, GRAD_THETA, MIX, STATS, THETA, vjp_graph
from acclimate.export.branches import rectified, seen
from acclimate.export.bundle_graphs import Quantized
from acclimate.export.calibration import CalibrationData
from acclimate.export.errors import VerificationError
from acclimate.export.graph import Array, Graph
from acclimate.export.passes.simplify import VIEW
from acclimate.export.passes.sites import Adaptable
from acclimate.export.reference import RowBatch, RowResult, reference
from acclimate.export.session import first_output, run, session
from acclimate.export.trace import Preprocessed, Preprocessing

_GROUPS = (0, 0, 0, 1, 1, 2)
_ALPHA = (1.0, 0.5, 0.0)
_TOGETHER: tuple[tuple[Kind, ...], ...] = (("norm.scale", "norm.shift"), ("lora.A",), ("lora.B",), ("bias",))


@dataclass(frozen=True, slots=True)
class Limits:
    """What is tolerated; relative errors are of Euclidean norms.

    `disagreement_points` applies where no labels were given: changed answers count whichever way they changed, so
    it has to be wider than `int8_points`, which is a loss of accuracy.
    """

    forward: float = 1e-4
    vjp: float = 1e-3
    int8_points: float = 0.5
    disagreement_points: float = 2.0


@dataclass(frozen=True, slots=True)
class Parity:
    """What was found; `int8_drop_points` is None without labels; `vjp_other_sides` as in `RowErrors`."""

    forward_rel_error: float
    vjp_rel_error: float
    batch_stats_rel_error: float
    float_accuracy: float | None
    int8_accuracy: float | None
    int8_drop_points: float | None
    int8_disagreement_points: float
    vjp_other_sides: int = 0


def relative_error(got: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """`|got - expected| / |expected|`, infinite where something is not finite."""
    if not (np.isfinite(got).all() and np.isfinite(expected).all()):
        return float("inf")
    return float(np.linalg.norm(got - expected) / max(float(np.linalg.norm(expected)), 1e-30))


def forward_error(model: nn.Module, preprocessing: Preprocessing, float_graph: Graph, inputs: Array) -> float:
    """The traced graph against torch, unquantized, both in float32."""
    with torch.no_grad():
        expected = Preprocessed(model, preprocessing).eval()(torch.from_numpy(inputs)).numpy()
    return relative_error(first_output(session(float_graph), inputs), expected)


def probe_rows(model: Adaptable, inputs: Array, seed: int = 0) -> RowBatch:
    """Six rows in three groups with alpha 1, 1/2 and 0, every row with parameters of its own.

    One gamma in sixteen changes its sign and one in sixteen is zero, since sessions may get there; the B of low-rank
    updates is far from the source's zero.
    """
    generator = np.random.default_rng(seed)
    group = np.array(_GROUPS, np.intp)
    count = len(group)
    shape = (count, model.parameters.size)
    theta = model.theta * (1 + 0.1 * generator.standard_normal(shape)) + 0.02 * generator.standard_normal(shape)
    scales = model.parameters.columns("norm.scale")
    theta[:, scales[0::16]] *= -1
    theta[:, scales[7::16]] = 0
    updates = model.parameters.columns("lora.B")
    theta[:, updates] = 0.2 * generator.standard_normal((count, len(updates)))
    stats = model.stats * (1 + 0.1 * generator.random((count, model.statistics.size)))
    (logits,) = model.graph.outputs.values()
    return RowBatch(
        inputs=np.ascontiguousarray(np.resize(inputs, (count, *inputs.shape[1:]))),
        theta=theta.astype(np.float32),
        stats=stats.astype(np.float32),
        group=group,
        alpha=np.array(_ALPHA, np.float32)[group],
        cotangent=generator.standard_normal((count, logits.shape[1])).astype(np.float32),
    )


@dataclass(frozen=True, slots=True)
class RowErrors:
    """Relative errors of the VJP graph; of the gradients, the worst row's.

    `other_sides` counts the units of rectifiers that float64 alone would have had on another side of a kink; errors
    are then those of float64 on the graph's sides (see `branches.py`).
    """

    logits: float
    gradients: float
    batch_stats: float
    other_sides: int = 0


def row_errors(
    model: nn.Module, preprocessing: Preprocessing, quantized: Quantized, vjp: Graph, inputs: Array
) -> RowErrors:
    """What `vjp` returns for rows of several sessions, against float64 autograd.

    The finished graph is compared with torch holding the dequantized weights. Where a quantized weight is not a
    parameter of the module by name (a folded norm made it), the unquantized graph is compared instead. Where float32
    and float64 are apart by more than the limit, they are compared again on the same side of every kink.
    """
    adaptable = quantized.model
    rows = probe_rows(adaptable, inputs)
    parameters = {name for name, _ in model.named_parameters()}
    replaced = dict(_of_module(name, weight.dequantized()) for name, weight in quantized.weights.items())
    if not parameters.issuperset(replaced):
        vjp, replaced = vjp_graph(adaptable), {}
    (image,), (logits,) = adaptable.graph.inputs, adaptable.graph.outputs
    feeds = {image: rows.inputs, THETA: rows.theta, STATS: rows.stats, MIX: rows.mix(), ALPHA: rows.alpha}
    feeds[COTANGENT] = rows.cotangent
    exact = reference(model, preprocessing, adaptable, rows, replaced)
    errors = _errors(run(session(vjp), feeds), exact, logits, adaptable.parameters)
    rectifiers = rectified(adaptable.graph)
    if errors.gradients <= Limits().vjp or not vjp.values.keys() >= rectifiers.keys():
        return errors
    got = run(session(vjp, rectifiers), feeds)
    branches = seen(adaptable.graph, got)
    exact = reference(model, preprocessing, adaptable, rows, replaced, branches)
    on_same_sides = _errors(got, exact, logits, adaptable.parameters)
    return errors if branches.lost else replace(on_same_sides, other_sides=branches.flipped)


def _errors(got: Mapping[str, Array], expected: RowResult, logits: str, parameters: Layout) -> RowErrors:
    return RowErrors(
        logits=relative_error(got[logits], expected.logits),
        gradients=gradient_error(got[GRAD_THETA], expected.grad_theta, parameters),
        batch_stats=relative_error(got[BATCH_STATS], expected.batch_stats),
    )


def gradient_error(got: NDArray[np.floating], expected: NDArray[np.floating], parameters: Layout) -> float:
    """The largest relative error of any row `[P]` in what it has of norms, of A, of B and of biases.

    Each by itself, since the gradient of a last layer's bias is the cotangent, exact and large, and would hide the
    rest. What is less than a hundredth of a row is compared with that.
    """
    whole = 0.01 * np.linalg.norm(expected, axis=1)
    worst = 0.0
    for kinds in _TOGETHER:
        columns = np.concatenate([parameters.columns(kind) for kind in kinds])
        size = np.maximum(np.linalg.norm(expected[:, columns], axis=1), np.maximum(whole, 1e-30))
        share = np.linalg.norm(got[:, columns] - expected[:, columns], axis=1) / size
        worst = max(worst, *np.where(np.isfinite(share), share, np.inf).tolist())
    return worst


def _of_module(name: str, weight: NDArray[np.float32]) -> tuple[str, NDArray[np.float32]]:
    """A weight as the module holds it; the graph may hold it transposed."""
    transposed = f"{VIEW}T"
    return (name.removesuffix(transposed), weight.T) if name.endswith(transposed) else (name, weight)


def int8_figures(float_graph: Graph, frozen: Graph, data: CalibrationData) -> dict[str, float | None]:
    """Accuracy of the float and the int8 model on calibration data, and how often they answer differently."""
    plain = first_output(session(float_graph), data.inputs).argmax(1)
    integer = first_output(session(frozen), data.inputs).argmax(1)
    figures: dict[str, float | None] = dict.fromkeys(("float_accuracy", "int8_accuracy", "int8_drop_points"))
    if data.labels is not None:
        before, after = float((plain == data.labels).mean()), float((integer == data.labels).mean())
        figures = {"float_accuracy": before, "int8_accuracy": after, "int8_drop_points": 100 * (before - after)}
    return figures | {"int8_disagreement_points": 100 * float((plain != integer).mean())}


def enforce(parity: Parity, limits: Limits) -> None:
    """Refuse a bundle that fails.

    Raises:
        VerificationError: names the first check that failed, its value and its limit.
    """
    _require("forward error against torch", parity.forward_rel_error, limits.forward, "report this model")
    _require("VJP error against float64 autograd", parity.vjp_rel_error, limits.vjp, "report this model")
    _require("batch statistics error", parity.batch_stats_rel_error, limits.vjp, "report this model")
    advice = "calibrate on more samples, or lower the headroom"
    if parity.int8_drop_points is not None:
        _require("int8 accuracy drop in points", parity.int8_drop_points, limits.int8_points, advice)
    else:
        _require("int8 disagreement in points", parity.int8_disagreement_points, limits.disagreement_points, advice)


def _require(check: str, value: float, limit: float, advice: str) -> None:
    # Written so that NaN fails.
    if not value <= limit:
        raise VerificationError(check, value, limit, advice)
