"""What a step can tell of a session's stream and of where it has got to: one level a signal, for all sessions at once.

Each is a number that stays about the same while the stream does, so that a detector can be fed with it, and each is 0
where nothing differs from the source.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.discrepancy import discrepancy
from acclimate.adapters.drift import fisher_distance, histogram_divergence
from acclimate.adapters.fields import THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import entropy, group_count, group_mean, softmax
from acclimate.adapters.requests import Index, Outputs
from acclimate.adapters.source import Source

SIGNALS = ("entropy", "confidence", "statistics", "predictions", "parameters")
USUAL = "drift.usual"
"""`[S, C]` float32: the session's slow average of predicted probabilities."""


def levels(
    source: Source, state: State, outputs: Outputs, batch_stats: Float, group: Index, alpha: Float
) -> NDArray[np.float64]:
    """The level `[S, 5]` of every signal of `SIGNALS` at one step; NaN where it cannot be told.

    - `entropy`: mean entropy of the answers as a share of ln C.
    - `confidence`: how far the mean confidence is from certain, as a share of what it is at chance.
    - `statistics`: `ln(1 + d)`, d the distance of the batch's statistics from the source's in source variances
      (`discrepancy`). A model without statistics has none, nor has a step that does not normalise with its batch: its
      requests may have been cut.
    - `predictions`: Jensen-Shannon divergence of the batch's mean prediction from the bundle's class prior and from
      the session's slow average, the mean of both as a share of ln 2. The first tells frequencies that are not the
      source's, the second those that are not what they were.
    - `parameters`: `ln(1 + d)`, d the distance of theta from the source in units of the source's Fisher
      (`fisher_distance`).

    Args:
        source: the model.
        state: of the sessions before the step, `[S, ...]`.
        outputs: of the first pass over the rows `[B]`.
        batch_stats: `[S, Q]` of each session.
        group: `[B]` the session of each row.
        alpha: `[S]` weight of the batch's statistics.
    """
    sessions, classes = len(alpha), source.classes
    probabilities = softmax(outputs.logits)
    share = group_mean(probabilities, group, sessions)
    sure = group_mean(probabilities.max(axis=1), group, sessions)
    told = alpha > 0 if len(source.stats) else np.zeros(sessions, np.bool_)
    from_prior = histogram_divergence(share, source.class_prior)
    from_usual = histogram_divergence(share, state[USUAL])
    columns = (
        group_mean(entropy(outputs.logits), group, sessions) / math.log(classes),
        (1 - sure) * classes / max(classes - 1, 1),
        np.where(told, np.log1p(discrepancy(source, batch_stats)), np.nan),
        (from_prior + from_usual) / (2 * math.log(2)),
        np.log1p(fisher_distance(source, state[THETA])),
    )
    found = np.stack(columns, axis=1).astype(np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def usual(state: State, logits: Float, group: Index, memory: float, anew: NDArray[np.bool_]) -> Float:
    """The slow average `[S, C]` after these rows; it is worth `memory` samples, none in the sessions `anew [S]`.

    What is not finite does not count.
    """
    sessions = len(state[USUAL])
    share = group_mean(softmax(logits), group, sessions)
    count = group_count(group, sessions)
    gain = (count / (count + np.where(anew, 0, memory)))[:, np.newaxis]
    moved = state[USUAL] + gain * (share - state[USUAL])
    return np.where(np.isfinite(share).all(axis=1, keepdims=True), moved, state[USUAL]).astype(np.float32)
