"""Softmax, entropy and sums over the rows of a session, in float32 and stable."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.requests import Index


def log_softmax(logits: Float) -> Float:
    """Log-probabilities `[B, C]` of logits `[B, C]`."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Float = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def softmax(logits: Float) -> Float:
    """Probabilities `[B, C]` of logits `[B, C]`."""
    result: Float = np.exp(log_softmax(logits))
    return result


def entropy(logits: Float) -> Float:
    """Shannon entropy `[B]` of the softmax of logits `[B, C]`, in nats."""
    log_p = log_softmax(logits)
    result: Float = -(np.exp(log_p) * log_p).sum(axis=-1)
    return result


def group_sum(values: NDArray[Any], group: Index, groups: int) -> NDArray[Any]:
    """Sum rows `[B, ...]` that share a group number into `[groups, ...]`; groups without rows are zero.

    Rows are added in their order of arrival and never multiplied by zero, so what one group gets does
    not depend on the others: not on their number, their order, nor on a NaN among them.
    """
    out = np.zeros((groups, *values.shape[1:]), values.dtype)
    if len(group) == 0:
        return out
    order = np.argsort(group, kind="stable")
    present, starts = np.unique(group[order], return_index=True)
    out[present] = np.add.reduceat(values[order], starts, axis=0)
    return out


def group_count(group: Index, groups: int) -> NDArray[np.int64]:
    """Rows per group `[groups]`."""
    return np.bincount(group, minlength=groups).astype(np.int64)


def group_mean(values: Float, group: Index, groups: int) -> Float:
    """Mean of the rows `[B, ...]` of each group, `[groups, ...]`; groups without rows are zero."""
    count = np.maximum(group_count(group, groups), 1).reshape(-1, *([1] * (values.ndim - 1)))
    return (group_sum(values, group, groups) / count).astype(np.float32)
