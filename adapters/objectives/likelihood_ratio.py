"""Soft likelihood ratio, the loss of ROID (Marsden et al. 2024, "Universal test-time adaptation", eq. 4)."""

from __future__ import annotations

import numpy as np

from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import softmax
from acclimate.adapters.objectives.base import Value

CLIP = 0.99
EPSILON = 1e-5


def likelihood_ratio_loss(logits: Float) -> Value:
    """`-sum q log(q / (1 - q) + 1e-5)` per row with `q = min(p, 0.99)`, for logits `[B, C]`.

    Unlike entropy's, its gradient does not fade as a prediction becomes sure, until the clip ends it.
    """
    p = softmax(logits)
    q = np.minimum(p, CLIP).astype(p.dtype)
    odds = q / (1 - q) + p.dtype.type(EPSILON)
    loss = -(q * np.log(odds)).sum(axis=-1)
    slope = np.where(p <= CLIP, -(np.log(odds) + q / ((1 - q) ** 2 * odds)), 0).astype(p.dtype)
    return Value(loss, p * (slope - (p * slope).sum(axis=-1, keepdims=True)))
