"""How far a batch's normalisation statistics are from the source's, in units of the source's spread."""

from __future__ import annotations

import numpy as np

from acclimate.adapters.layout import Float, Layout
from acclimate.adapters.source import Source

EPSILON = np.float32(1e-5)


def discrepancy(source: Source, stats: Float) -> Float:
    """Mean over channels of `(mean - mean0)^2 / var0 + (sd / sd0 - 1)^2`, `[S]` for statistics `[S, Q]`.

    The squared 2-Wasserstein distance of normal distributions, in units of the source's variance. 0 for models
    without running statistics.
    """
    mean, var = columns(source.statistics)
    if len(mean) == 0:
        return np.zeros(len(stats), np.float32)
    spread = source.stats[var] + EPSILON
    shift = (stats[:, mean] - source.stats[mean]) ** 2 / spread
    stretch = (np.sqrt(np.maximum(stats[:, var], 0) / spread) - 1) ** 2
    result: Float = (shift + stretch).mean(axis=1)
    return result


def columns(statistics: Layout) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], ...]:
    """Columns of the means and of the variances, channel by channel in the same order."""
    return statistics.columns("norm.mean"), statistics.columns("norm.var")
