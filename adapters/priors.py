"""Output stages that correct answers by how often each class is being predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import group_count, group_mean, softmax
from acclimate.adapters.requests import Index
from acclimate.adapters.source import Source

PRIOR = "outputs.prior"


@dataclass(frozen=True, slots=True)
class BatchPrior:
    """Multiply probabilities by the smoothed mean prediction of the batch (ROID: Marsden et al. 2024, eqs. 10-11).

    `prior = (m + s) / (1 + s C)` with m the mean prediction and `s = max(1/B, 1/C) / max m`. The authors' code
    multiplies logits, which lowers a class of negative logit the more likely it is; the paper's text, and this,
    multiply probabilities.
    """

    reads_features: ClassVar[bool] = False

    def template(self, source: Source) -> State:
        """No state."""
        return {}

    def apply(self, source: Source, state: State, logits: Float, group: Index, features: Float) -> tuple[Float, State]:
        """Log-probabilities `[B, C]` up to a constant per row."""
        sessions, classes = int(group.max(initial=-1)) + 1, logits.shape[1]
        mean = group_mean(softmax(logits), group, sessions)
        rows = np.maximum(group_count(group, sessions), 1)
        smooth = (np.maximum(1 / rows, 1 / classes) / np.maximum(mean.max(axis=1), 1e-12))[:, np.newaxis]
        prior = (mean + smooth) / (1 + smooth * classes)
        return logits + np.log(prior[group]).astype(np.float32), {}


@dataclass(frozen=True, slots=True)
class LabelShift:
    """Follow the stream's class frequencies and answer with them in place of the source's.

    If only the frequencies changed, `p(y|x)` changes by `prior(y) / source_prior(y)`, and the mean corrected
    prediction is the maximum-likelihood step for the prior (Saerens, Latinne and Decaestecker 2002, eqs. 2.4 and
    2.9), here taken once per batch and averaged over the stream.

    Attributes:
        memory: samples that the running prior is worth; a batch of n moves it by `n / (n + memory)`.
        smoothing: share of the source's prior that is always mixed in, so that no class becomes impossible.
    """

    reads_features: ClassVar[bool] = False
    memory: float = 256.0
    smoothing: float = 0.1

    def template(self, source: Source) -> State:
        """The stream's class frequencies `[C]`, the source's at first."""
        return {PRIOR: source.class_prior.astype(np.float32)}

    def apply(self, source: Source, state: State, logits: Float, group: Index, features: Float) -> tuple[Float, State]:
        """Corrected log-probabilities `[B, C]` up to a constant per row, and the moved frequencies."""
        prior, base = state[PRIOR], np.maximum(source.class_prior, np.float32(1e-6))
        sessions = len(prior)
        ratio = ((1 - self.smoothing) * prior + self.smoothing * base) / base
        corrected = (logits + np.log(ratio)[group]).astype(np.float32)
        rows = group_count(group, sessions)
        weight = (rows / (rows + self.memory))[:, np.newaxis]
        moved = (1 - weight) * prior + weight * group_mean(softmax(corrected), group, sessions)
        return corrected, {PRIOR: moved.astype(np.float32)}
