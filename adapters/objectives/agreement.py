"""How far two predictions are apart, with the gradient for the logits of one or of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import log_softmax, softmax
from acclimate.adapters.objectives.base import Value


@dataclass(frozen=True, slots=True)
class PairValue:
    """Per-pair loss `[B]` in nats, and the cotangents `[B, C]` of both logits."""

    loss: Float
    first: Float
    second: Float


def cross_entropy(logits: Float, target: Float) -> Value:
    """`-sum t log p` for logits and target probabilities `[B, C]`, and `p - t`; the target is a constant."""
    log_p = log_softmax(logits)
    return Value(-(target * log_p).sum(axis=-1), np.exp(log_p) - target)


def label_cross_entropy(logits: Float, labels: NDArray[np.int64]) -> Value:
    """`-log p_label` for labels `[B]`; zero, with a zero cotangent, for rows whose label is negative."""
    known = labels >= 0
    target = np.zeros_like(logits)
    target[np.flatnonzero(known), labels[known]] = 1
    value = cross_entropy(logits, target)
    return Value(value.loss, np.where(known[:, np.newaxis], value.cotangent, 0).astype(logits.dtype))


def symmetric_cross_entropy(first: Float, second: Float) -> PairValue:
    """`-(sum p2 log p1 + sum p1 log p2) / 2` for two logits `[B, C]`, neither a constant (ROID, eq. 9)."""
    log_p, log_q = log_softmax(first), log_softmax(second)
    p, q = np.exp(log_p), np.exp(log_q)
    loss = -((q * log_p).sum(axis=-1) + (p * log_q).sum(axis=-1)) / 2
    half = p.dtype.type(0.5)
    return PairValue(loss, half * (p - q + _through(p, -log_q)), half * (q - p + _through(q, -log_p)))


def marginal_entropy(logits: Float) -> Value:
    """Entropy `[B]` of the mean prediction over views, for logits `[B, V, C]` (MEMO: Zhang et al. 2022, eq. 3).

    The cotangent `[B, V, C]` is that of the logits of each view.
    """
    p = softmax(logits)
    log_mean = np.log(np.maximum(p.mean(axis=1, keepdims=True), np.finfo(p.dtype).tiny))
    loss = -(np.exp(log_mean) * log_mean).sum(axis=(1, 2))
    # The constant of d(-m log m)/dm = -(log m + 1) has no gradient: each view's probabilities sum to one.
    return Value(loss, _through(p, np.broadcast_to(-log_mean, p.shape)) / p.dtype.type(p.shape[1]))


def _through(p: Float, slope: Float) -> Float:
    """Gradient for the logits of `sum p slope`, the slope a constant."""
    result: Float = p * (slope - (p * slope).sum(axis=-1, keepdims=True))
    return result
