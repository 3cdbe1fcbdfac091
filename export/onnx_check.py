"""Finished graphs against an ONNX original, without torch: ONNX Runtime forward, finite differences backward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from acclimate.export.backward.vjp import (
    ALPHA,
    BATCH_STATS,
    COTANGENT,
    GRAD_THETA,
    MIX,
    STATS,
    THETA,
    observe_graph,
    vjp_graph,
)
from acclimate.export.bundle_graphs import BundleGraphs, Quantized
from acclimate.export.calibration import CalibrationData
from acclimate.export.graph import Array, Graph, Node, Value
from acclimate.export.onnx_format import to_onnx
from acclimate.export.passes.sites import SITE, Adaptable
from acclimate.export.reference import RowBatch
from acclimate.export.session import first_output, run, session
from acclimate.export.statistics import rows_of_one
from acclimate.export.trace import Preprocessing
from acclimate.export.verify import Limits, Parity, int8_figures, probe_rows, relative_error
from acclimate.export.weights import rounded

DIRECTIONS, POINTS = 8, 3
STEP = 1e-6
_ROWS = 16
_FLOAT, _DOUBLE = int(onnx.TensorProto.FLOAT), int(onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class OnnxOriginal:
    """The file's own computation, run by ONNX Runtime.

    Attributes:
        running: its session.
        feed: name of its input.
        batch: rows of a call where the file fixes them, else 0.
        pixels: what turns uint8 images into its input; None where it takes them as they are.
    """

    running: onnxruntime.InferenceSession
    feed: str
    batch: int
    pixels: Preprocessing | None

    @classmethod
    def of(cls, proto: onnx.ModelProto, feed: str, preprocessing: Preprocessing) -> OnnxOriginal:
        """From a model up to its logits."""
        (info,) = (entry for entry in proto.graph.input if entry.name == feed)
        kind, dims = info.type.tensor_type.elem_type, info.type.tensor_type.shape.dim
        pixels = preprocessing if kind == onnx.TensorProto.FLOAT else None
        return cls(session(proto.SerializeToString()), feed, dims[0].dim_value, pixels)

    def logits(self, images: Array) -> NDArray[np.float32]:
        """Logits `[N, classes]` of uint8 images `[N, C, H, W]`."""
        inputs = images if self.pixels is None else preprocessed(images, self.pixels)
        size = self.batch or len(inputs)
        # A fixed batch gets its last rows repeated, and the answers to those are cut off.
        padded = np.concatenate([inputs, np.repeat(inputs[-1:], -len(inputs) % size, axis=0)])
        parts = [self.running.run(None, {self.feed: padded[i : i + size]})[0] for i in range(0, len(padded), size)]
        return np.concatenate(parts)[: len(inputs)]


def preprocessed(images: Array, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """`(images * scale - mean) / std` per channel, in double precision and rounded once."""
    mean, std = (np.reshape(values, (-1, 1, 1)) for values in (preprocessing.mean, preprocessing.std))
    return np.asarray((images * np.float64(preprocessing.scale) - mean) / std, np.float32)


def parity(original: OnnxOriginal, quantized: Quantized, graphs: BundleGraphs, data: CalibrationData) -> Parity:
    """The figures that a bundle is accepted or refused by.

    Forward: the float graph, and the VJP graph before quantization at the source, against ONNX Runtime on the file.
    Backward: the finished VJP graph against central differences, in float64, of its own forward half. Batch
    statistics: against the pixels that reach each norm of the float graph.
    """
    images = data.inputs[:_ROWS]
    expected = original.logits(images)
    model = quantized.model
    vjp = vjp_graph(model)
    (image,), (logits,) = model.graph.inputs, model.graph.outputs
    rows = rows_of_one(model, len(images), alpha=0.0) | {image: images, COTANGENT: np.zeros_like(expected)}
    got = run(session(vjp), rows)
    return Parity(
        forward_rel_error=max(
            relative_error(first_output(session(quantized.source), images), expected),
            relative_error(got[logits], expected),
        ),
        vjp_rel_error=least_gradient_error(quantized, graphs.vjp, vjp, images),
        batch_stats_rel_error=relative_error(got[BATCH_STATS][0], _moments(quantized, images)),
        **int8_figures(quantized.source, graphs.frozen, data),  # type: ignore[arg-type]
    )


def least_gradient_error(quantized: Quantized, finished: Graph, vjp: Graph, images: Array) -> float:
    """The least error at up to `POINTS` points; later ones are tried where those before exceed the limit.

    A wrong gradient is wrong everywhere; one that float32 and float64 take on two sides of a rectifier's kink is not.
    """
    least = float("inf")
    for point in range(POINTS):
        least = min(least, gradient_error(quantized, finished, vjp, images, point))
        if least <= Limits().vjp:
            break
    return least


def gradient_error(quantized: Quantized, finished: Graph, vjp: Graph, images: Array, seed: int = 0) -> float:
    """Relative error of directional derivatives `<grad_theta, d>` along random d, of rows of several sessions.

    With standard normal directions, the norm of these derivatives' errors is in expectation that of the
    gradient's error times the root of their number, and so is the norm of the derivatives: their ratio estimates
    the relative error of the gradient itself.
    """
    model = quantized.model
    rows = probe_rows(model, images, seed)
    (image,) = model.graph.inputs
    feeds = {image: rows.inputs, THETA: rows.theta, STATS: rows.stats, MIX: rows.mix(), ALPHA: rows.alpha}
    gradient = run(session(finished), feeds | {COTANGENT: rows.cotangent})[GRAD_THETA]
    loss = _Loss.of(rounded(observe_graph(vjp), quantized.weights), model, rows, feeds)
    generator = np.random.default_rng(1)
    directions = [generator.standard_normal(rows.theta.shape) for _ in range(DIRECTIONS)]
    expected = [(loss.at(STEP * d) - loss.at(-STEP * d)) / (2 * STEP) for d in directions]
    found = [float((gradient.astype(np.float64) * d).sum()) for d in directions]
    return relative_error(np.array(found), np.array(expected))


@dataclass(frozen=True)
class _Loss:
    """`sum(cotangent * logits)` in float64 as a function of a change of theta."""

    evaluator: ReferenceEvaluator
    feeds: Mapping[str, Array]
    logits: str
    cotangent: NDArray[np.float64]

    @classmethod
    def of(cls, observe: Graph, model: Adaptable, rows: RowBatch, feeds: Mapping[str, Array]) -> _Loss:
        wide = {name: _widened(array) for name, array in feeds.items() if name in observe.inputs}
        (logits,) = model.graph.outputs
        return cls(ReferenceEvaluator(to_onnx(in_double(observe))), wide, logits, rows.cotangent.astype(np.float64))

    def at(self, change: NDArray[np.float64]) -> float:
        feeds = {**self.feeds, THETA: self.feeds[THETA] + change}
        (logits,) = self.evaluator.run([self.logits], feeds)
        return float((np.asarray(logits) * self.cotangent).sum())


def in_double(graph: Graph) -> Graph:
    """A float32 graph computed in float64."""
    result = graph.copy(_cast_to_double(node) for node in graph.nodes)
    result.constants = {name: _widened(array) for name, array in graph.constants.items()}
    result.inputs = {name: _wide_value(value) for name, value in graph.inputs.items()}
    result.outputs = {name: _wide_value(value) for name, value in graph.outputs.items()}
    return result


def _cast_to_double(node: Node) -> Node:
    if node.op != "Cast" or node.attributes["to"] != _FLOAT:
        return node
    return Node(node.op, node.inputs, node.outputs, {**node.attributes, "to": _DOUBLE}, node.domain)


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _wide_value(value: Value) -> Value:
    return Value(np.dtype(np.float64), value.shape) if value.dtype == np.float32 else value


def _moments(quantized: Quantized, images: Array) -> NDArray[np.float64]:
    """Mean and biased variance `[Q]` of what reaches each norm, in the order of the statistics' layout."""
    nodes = [node for node in quantized.model.graph.nodes if node.op == SITE]
    names = [node.inputs[0] for node in nodes]
    (image,) = quantized.source.inputs
    reached = run(session(quantized.source, set(names)), {image: images})
    moments: dict[str, NDArray[np.float64]] = {}
    for node in nodes:
        site, pixels = quantized.model.sites[node.attributes["site"]], reached[node.inputs[0]].astype(np.float64)
        moments |= {site.mean: pixels.mean((0, 2, 3)), site.var: pixels.var((0, 2, 3))}
    return np.concatenate([np.empty(0), *(moments[entry.name] for entry in quantized.model.statistics.slices)])
