"""Shannon entropy of the prediction, the loss of TENT (Wang et al. 2021, eq. 1)."""

from __future__ import annotations

import numpy as np

from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import log_softmax
from acclimate.adapters.objectives.base import Value


def entropy_loss(logits: Float) -> Value:
    """`H = -sum p log p` per row, and `dH/dz = -p (log p + H)`, for logits `[B, C]`."""
    log_p = log_softmax(logits)
    p = np.exp(log_p)
    loss = -(p * log_p).sum(axis=-1)
    return Value(loss, -p * (log_p + loss[:, np.newaxis]))
