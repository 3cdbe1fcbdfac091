"""What the algorithms need to know about the source model, measured on calibration data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import Calibration
from acclimate.export.backward.vjp import ALPHA, COTANGENT, GRAD_THETA, MIX, STATS, THETA, observe_graph
from acclimate.export.calibration import CalibrationData
from acclimate.export.features import FEATURES, feature_arrays, last_linear
from acclimate.export.graph import Array, Graph
from acclimate.export.passes.sites import Adaptable
from acclimate.export.progress import counted
from acclimate.export.session import batches, first_output, run, session

FISHER_BATCH = 64
HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class SourceStatistics:
    """Arrays of `source.safetensors` beyond theta and stats, and the manifest's calibration figures.

    `others` are those that a reader may do without, by their names there.
    """

    fisher: Float
    class_prior: Float
    canary_inputs: Array
    canary_labels: NDArray[np.int64]
    calibration: Calibration
    others: Mapping[str, Array] = field(default_factory=dict)


def source_statistics(
    model: Adaptable, frozen: Graph, vjp: Graph, data: CalibrationData, canaries: int
) -> SourceStatistics:
    """Measure everything: figures and prior on the quantized model, Fisher and features through `vjp.onnx`."""
    probabilities = softmax(first_output(session(frozen), data.inputs))
    predicted = probabilities.argmax(1)
    answers = predicted if data.labels is None else data.labels
    chosen = balanced(answers, canaries)
    return SourceStatistics(
        fisher=fisher(model, vjp, data.inputs),
        class_prior=probabilities.mean(0).astype(np.float32),
        canary_inputs=np.ascontiguousarray(data.inputs[chosen]),
        canary_labels=answers[chosen].astype(np.int64),
        calibration=confidence_figures(probabilities, data.labels),
        others=histograms(probabilities) | features(model, vjp, data.inputs, answers),
    )


def histograms(probabilities: NDArray[np.float64]) -> dict[str, Array]:
    """Shares of the samples by entropy, in 20 equal bins from 0 to ln C, and by confidence, from 0 to 1."""
    classes = probabilities.shape[1]
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(1)
    # Rounding may push the entropy of a uniform answer past the last bin's edge.
    inside = np.clip(entropy, 0, math.log(classes))
    shares = {
        "histogram.entropy": np.histogram(inside, HISTOGRAM_BINS, (0, math.log(classes)))[0],
        "histogram.confidence": np.histogram(probabilities.max(1), HISTOGRAM_BINS, (0, 1))[0],
    }
    return {name: (count / len(probabilities)).astype(np.float32) for name, count in shares.items()}


def features(model: Adaptable, vjp: Graph, inputs: Array, answers: NDArray[np.int64]) -> dict[str, Array]:
    """Figures of the last linear layer's inputs, normalised with the source's statistics; none without such a layer."""
    layer = last_linear(model.graph)
    if layer is None:
        return {}
    observe, seen, made = session(observe_graph(vjp)), [], []
    image, logits = next(iter(model.graph.inputs)), next(iter(model.graph.outputs))
    for part in counted(batches(len(inputs)), "batches"):
        outputs = run(observe, rows_of_one(model, len(inputs[part]), alpha=0.0) | {image: inputs[part]})
        seen.append(outputs[FEATURES])
        made.append(outputs[logits])
    return feature_arrays(layer, np.concatenate(seen), np.concatenate(made), answers.astype(np.int64))


def softmax(logits: Float) -> NDArray[np.float64]:
    """Probabilities `[N, C]` of logits `[N, C]`."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))


def confidence_figures(probabilities: NDArray[np.float64], labels: NDArray[np.int64] | None) -> Calibration:
    """Accuracy, mean confidence and entropy, and ATC's threshold on the largest probability.

    The threshold t makes the share of samples with confidence above t equal to the accuracy (Garg et al. 2022,
    arXiv 2201.04234, eq. 1); without labels the mean confidence stands in for the accuracy.
    """
    confidence = probabilities.max(1)
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(1)
    accuracy = float(confidence.mean() if labels is None else (probabilities.argmax(1) == labels).mean())
    return Calibration(
        accuracy=accuracy,
        labelled=labels is not None,
        mean_confidence=float(confidence.mean()),
        mean_entropy=float(entropy.mean()),
        confidence_threshold=float(np.quantile(confidence, 1 - accuracy)),
    )


def fisher(model: Adaptable, vjp: Graph, inputs: Array) -> Float:
    """Diagonal Fisher `[P]` in EATA's form (Niu et al. 2022, arXiv 2204.02610, eq. 9).

    Mean over batches of 64 of the squared gradient of the batch's mean cross-entropy with the model's own
    answers, normalised with the batch's statistics. It depends on the batch size; a last short batch is left
    out unless it is the only one.
    """
    running = session(vjp)
    image, logits = next(iter(model.graph.inputs)), next(iter(model.graph.outputs))
    size = min(FISHER_BATCH, len(inputs))
    squares = []
    for start in counted(range(0, len(inputs) - size + 1, size), "batches"):
        feeds = rows_of_one(model, size, alpha=1.0) | {image: inputs[start : start + size]}
        classes = model.graph.outputs[logits].shape[1]
        outputs = run(running, feeds | {COTANGENT: np.zeros((size, classes), np.float32)})
        probabilities = softmax(outputs[logits])
        cotangent = (probabilities - np.eye(classes)[probabilities.argmax(1)]) / size
        gradients = run(running, feeds | {COTANGENT: cotangent.astype(np.float32)})[GRAD_THETA]
        squares.append(gradients.astype(np.float64).sum(0) ** 2)
    mean: Float = np.mean(squares, axis=0).astype(np.float32)
    return mean


def rows_of_one(model: Adaptable, size: int, alpha: float) -> dict[str, Array]:
    """Row inputs for `size` samples of one session at the source parameters."""
    return {
        THETA: np.tile(model.theta, (size, 1)),
        STATS: np.tile(model.stats, (size, 1)),
        MIX: np.full((size, size), 1 / size, np.float32),
        ALPHA: np.full(size, alpha, np.float32),
    }


def balanced(answers: NDArray[np.int64], count: int) -> NDArray[np.intp]:
    """Positions of `count` samples that take the classes in turn, earliest first."""
    turn = np.zeros(len(answers), np.intp)
    seen: dict[int, int] = {}
    for position, answer in enumerate(answers.tolist()):
        turn[position] = seen[answer] = seen.get(answer, -1) + 1
    return np.sort(np.lexsort((np.arange(len(answers)), turn))[:count])
