"""A complete engine in NumPy: one normalisation over the features, then a linear classifier.

It ships, so that algorithms, sessions and the scheduler can be run and tested without ONNX Runtime and against
arithmetic that fits on a page: `logits = (gamma * (x - mean) / sqrt(var + eps) + beta) W + b`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.features import FeatureStatistics
from acclimate.adapters.layout import Float, Layout
from acclimate.adapters.manifest import REQUIRED_FILES, Calibration, Cost, FileEntry, Manifest, Site, TensorSpec
from acclimate.adapters.numerics import group_count, group_mean, softmax
from acclimate.adapters.requests import Forward, Gradient, Gradients, Outputs, Rows
from acclimate.adapters.source import Source
from acclimate.runtime.engines.base import Folded, Specialised

EPSILON = 1e-5


@dataclass(frozen=True, eq=False)
class ReferenceEngine:
    """Weights `[D, C]` and bias `[C]` over `D` float32 features, normalised with source mean and variance `[D]`."""

    name: str
    weights: Float
    bias: Float
    mean: Float
    var: Float
    canary_inputs: Float

    @cached_property
    def manifest(self) -> Manifest:
        """As an exporter would describe it; the graphs it lists do not exist."""
        features, classes = self.weights.shape
        nothing = FileEntry(sha256="0" * 64, bytes=0)
        return Manifest(
            name=self.name,
            version="1",
            task="classification",
            classes=tuple(str(c) for c in range(classes)),
            inputs=(TensorSpec("features", "FP32", (-1, features)),),
            outputs=(TensorSpec("logits", "FP32", (-1, classes)),),
            parameters=Layout.of(
                [("norm.weight", "norm.scale", (features,)), ("norm.bias", "norm.shift", (features,))]
            ),
            statistics=Layout.of(
                [
                    ("norm.running_mean", "norm.mean", (features,)),
                    ("norm.running_var", "norm.var", (features,)),
                ]
            ),
            sites=(
                Site(
                    "norm",
                    features,
                    EPSILON,
                    "norm.weight",
                    "norm.bias",
                    "norm.running_mean",
                    "norm.running_var",
                ),
            ),
            calibration=Calibration(0.9, False, 0.9, 0.3, 0.5),
            cost=Cost(2.0 * features * classes, 6.0 * features * classes, 0.01, 0.03),
            files=dict.fromkeys(REQUIRED_FILES, nothing),
            provenance={"engine": "reference"},
            features=features,
        )

    @cached_property
    def source(self) -> Source:
        """Unit scale, zero shift, a Fisher of ones; the canaries' labels are the model's own answers."""
        features = len(self.weights)
        theta = np.concatenate([np.ones(features), np.zeros(features)]).astype(np.float32)
        logits = self._logits(self.canary_inputs, theta[np.newaxis], self.mean, self.var)
        return Source(
            parameters=self.manifest.parameters,
            statistics=self.manifest.statistics,
            theta=theta,
            stats=np.concatenate([self.mean, self.var]),
            fisher=np.ones(2 * features, np.float32),
            class_prior=softmax(logits).mean(axis=0),
            canary_inputs=self.canary_inputs,
            canary_labels=logits.argmax(axis=1).astype(np.int64),
            calibration=self.manifest.calibration,
            features=self._features(theta),
        )

    @property
    def specialised(self) -> Specialised:
        """None: there are no graphs."""
        return Specialised()

    def frozen(self, inputs: NDArray[Any]) -> Float:
        """Logits `[B, C]` at the source."""
        return self.predict(inputs, self.fold(self.source.theta, self.source.stats))

    def fold(self, theta: Float, stats: Float) -> Folded:
        """Copies of theta `[P]` and stats `[Q]`; there is nothing to fold."""
        return Folded((theta.copy(), stats.copy()))

    def predict(self, inputs: NDArray[Any], folded: Folded) -> Float:
        """Logits `[B, C]` for rows of one session."""
        theta, stats = folded.arrays
        mean, var = np.split(stats, 2)
        return self._logits(inputs, theta[np.newaxis], mean, var)

    def forward(self, request: Forward) -> Outputs:
        """Logits and batch statistics for rows of many sessions."""
        mean, var, batch = self._normalisation(request.rows)
        hidden = self._hidden(request.rows.inputs, request.rows.theta, mean, var)
        return Outputs(self._classified(hidden), batch, hidden)

    def vjp(self, request: Gradient) -> Gradients:
        """`grad_gamma = g * x_hat`, `grad_beta = g` with `g = cotangent W^T`; the input's statistics hold no theta."""
        rows = request.rows
        mean, var, _ = self._normalisation(rows)
        upstream = request.cotangent @ self.weights.T
        if request.features is not None:
            upstream = upstream + request.features
        normalised = (rows.inputs - mean) / np.sqrt(var + np.float32(EPSILON))
        gradient = np.concatenate([upstream * normalised, upstream], axis=1).astype(np.float32)
        return Gradients(gradient, self._logits(rows.inputs, rows.theta, mean, var))

    def close(self) -> None:
        """Nothing to release."""

    def _logits(self, inputs: NDArray[Any], theta: Float, mean: Float, var: Float) -> Float:
        return self._classified(self._hidden(inputs, theta, mean, var))

    def _hidden(self, inputs: NDArray[Any], theta: Float, mean: Float, var: Float) -> Float:
        gamma, beta = np.split(theta, 2, axis=1)
        result: Float = gamma * (inputs - mean) / np.sqrt(var + np.float32(EPSILON)) + beta
        return result

    def _features(self, theta: Float) -> FeatureStatistics:
        """Figures of the canaries' features: the classes' means, and the variance around them, each alone."""
        hidden = self._hidden(self.canary_inputs, theta[np.newaxis], self.mean, self.var)
        answer, classes = self._classified(hidden).argmax(axis=1), len(self.bias)
        count = group_count(answer, classes)
        centres = group_mean(hidden, answer, classes)
        return FeatureStatistics(
            centres=centres,
            shares=(count / count.sum()).astype(np.float32),
            factor=np.zeros((len(self.weights), 0), np.float32),
            residual=((hidden - centres[answer]) ** 2).mean(axis=0).astype(np.float32),
            weight=np.ascontiguousarray(self.weights.T),
            bias=self.bias,
        )

    def _classified(self, hidden: Float) -> Float:
        # A sum over an axis, not a matrix product: BLAS may round a row differently in another batch.
        result: Float = (hidden[:, :, np.newaxis] * self.weights).sum(axis=1, dtype=np.float32) + self.bias
        return result

    def _normalisation(self, rows: Rows) -> tuple[Float, Float, Float]:
        """Blended mean and variance `[B, D]`, and the batch statistics `[B, Q]`."""
        groups = int(rows.group.max()) + 1
        batch_mean = group_mean(rows.inputs, rows.group, groups)[rows.group]
        batch_var = group_mean((rows.inputs - batch_mean) ** 2, rows.group, groups)[rows.group]
        batch = np.concatenate([batch_mean, batch_var], axis=1)
        alpha = rows.alpha[:, np.newaxis]
        mean, var = np.split((1 - alpha) * rows.stats + alpha * batch, 2, axis=1)
        return mean, var, batch


def reference_engine(name: str = "reference", *, seed: int = 0, features: int = 8, classes: int = 4) -> ReferenceEngine:
    """A random classifier over standard normal features."""
    generator = np.random.default_rng(seed)
    return ReferenceEngine(
        name=name,
        weights=generator.normal(size=(features, classes)).astype(np.float32),
        bias=generator.normal(size=classes).astype(np.float32) * np.float32(0.1),
        mean=np.zeros(features, np.float32),
        var=np.ones(features, np.float32),
        canary_inputs=generator.normal(size=(16, features)).astype(np.float32),
    )
