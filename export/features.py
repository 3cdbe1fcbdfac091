"""The features of a model: what its last linear layer reads, and figures of them at the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.features import PREFIX, RANK
from acclimate.adapters.layout import Float
from acclimate.export.graph import BATCH, Array, Graph, Node
from acclimate.export.passes.biases import BIAS_SITE
from acclimate.export.passes.low_rank import LOW_RANK

FEATURES, COTANGENT_FEATURES = "features", "cotangent_features"
MOST_CENTRES = 2**17
"""Numbers that class centres may take; where they would be more, or a class has one sample, there is one centre."""


@dataclass(frozen=True)
class LastLinear:
    """The layer that makes the logits: the tensor `[B, D]` that it reads, and its weight `[C, D]`."""

    tensor: str
    weight: Float

    @property
    def width(self) -> int:
        """D."""
        return int(self.weight.shape[1])


def last_linear(graph: Graph) -> LastLinear | None:
    """The last linear layer, through the bias or the low-rank update that is added to it; None if there is none.

    A model that has a tensor of the name `features` that is something else is left without.
    """
    ((logits, value),) = graph.outputs.items()
    found = _linear(logits, graph, graph.producers(), value.shape[-1])
    taken = found is not None and found.tensor != FEATURES and FEATURES in (*graph.values, *graph.constants)
    return None if taken else found


def _linear(name: str, graph: Graph, producers: Mapping[str, Node], classes: int) -> LastLinear | None:
    node = producers.get(name)
    if node is None:
        return None
    if node.op in ("Gemm", "MatMul"):
        return _layer(node, graph, classes)
    if node.op in ("Add", "Identity", LOW_RANK, BIAS_SITE):
        found = [_linear(source, graph, producers, classes) for source in node.inputs]
        return next((layer for layer in found if layer is not None), None)
    return None


def _layer(node: Node, graph: Graph, classes: int) -> LastLinear | None:
    tensor, weight = node.inputs[:2]
    if weight not in graph.constants or node.attributes.get("transA", 0) or tensor not in graph.values:
        return None
    matrix = graph.constants[weight]
    if matrix.ndim != 2 or graph.values[tensor].shape != (BATCH, matrix.size // max(classes, 1)):
        return None
    rows = matrix if node.attributes.get("transB", 0) else matrix.T
    scaled = np.float32(node.attributes.get("alpha", 1.0)) * rows
    return LastLinear(tensor, scaled.astype(np.float32)) if len(rows) == classes else None


def feature_arrays(layer: LastLinear, features: Float, logits: Float, answers: NDArray[np.int64]) -> dict[str, Array]:
    """Arrays of `source.safetensors`; see `acclimate.adapters.features.FeatureStatistics`.

    Args:
        layer: the layer whose inputs they are.
        features: `[N, D]` of calibration samples.
        logits: `[N, C]` that the layer made of them.
        answers: `[N]` their labels, or the model's own answers.
    """
    classes, wide = logits.shape[1], features.astype(np.float64)
    count = np.bincount(answers, minlength=classes)
    group = answers if count.min() > 1 and classes * layer.width <= MOST_CENTRES else np.zeros_like(answers)
    groups = classes if group is answers else 1
    count = np.bincount(group, minlength=groups)
    centres = np.stack([wide[group == number].mean(axis=0) for number in range(groups)])
    factor, residual = _low_rank(wide - centres[group])
    scale = np.maximum(np.abs(layer.weight).max(axis=1), np.finfo(np.float32).tiny) / 127
    weight = np.rint(layer.weight / scale[:, np.newaxis]).astype(np.int8)
    # Read off what the layer did, since the bias may be a constant, a slice of theta, or absent.
    bias = (logits - wide @ (weight * scale[:, np.newaxis]).T.astype(np.float64)).mean(axis=0)
    arrays: dict[str, Array] = {
        "centres": centres,
        "shares": count / count.sum(),
        "factor": factor,
        "residual": residual,
        "scale": scale,
        "bias": bias,
    }
    named = {f"{PREFIX}{name}": np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    return named | {f"{PREFIX}weight": weight}


def _low_rank(offsets: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The covariance of offsets `[N, D]` as its leading directions `[D, R]`, and the variance `[D]` they leave."""
    _, size, directions = np.linalg.svd(offsets / np.sqrt(len(offsets)), full_matrices=False)
    factor = (size[:RANK, np.newaxis] * directions[:RANK]).T
    return factor, np.maximum((offsets**2).mean(axis=0) - (factor**2).sum(axis=1), 0)
