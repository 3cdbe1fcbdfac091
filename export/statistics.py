"""What the algorithms need to know about the source model, measured on calibration data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import Calibration
from acclimate.export.backward.vjp import ALPHA, COTANGENT, GRAD_THETA, MIX, STATS, THETA
from acclimate.export.calibration import CalibrationData
from acclimate.export.graph import Array, Graph
from acclimate.export.passes.sites import Adaptable
from acclimate.export.session import first_output, run, session

FISHER_BATCH = 64


@dataclass(frozen=True)
class SourceStatistics:
    """Arrays of `source.safetensors` beyond theta and stats, and the manifest's calibration figures."""

    fisher: Float
    class_prior: Float
    canary_inputs: Array
    canary_labels: NDArray[np.int64]
    calibration: Calibration


def source_statistics(
    model: Adaptable, frozen: Graph, vjp: Graph, data: CalibrationData, canaries: int
) -> SourceStatistics:
    """Measure everything: figures and prior on the quantized model, the Fisher through `vjp.onnx`."""
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
    )


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
    for start in range(0, len(inputs) - size + 1, size):
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
