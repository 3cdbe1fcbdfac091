"""Class-aware feature alignment: near the answered class's source features, far from the others' (Jung et al. 2023)."""

from __future__ import annotations

import numpy as np

from acclimate.adapters.features import Precision
from acclimate.adapters.layout import Float
from acclimate.adapters.objectives.base import Value
from acclimate.adapters.requests import Index

TINY = 1e-12


def class_alignment(features: Float, centres: Float, precision: Precision, label: Index) -> Value:
    """`ln(D_label / sum_c D_c)` per row, D the squared Mahalanobis distance from a class's centre (CAFA, eqs. 3-5).

    Args:
        features: `[B, D]`.
        centres: `[C, D]` of the source's classes.
        precision: of the features around their centres, the same for all classes.
        label: `[B]` classes, constants.

    Returns:
        Loss `[B]`, and the cotangent of the features, `[B, D]`.
    """
    offset = features.astype(np.float64)[:, np.newaxis] - centres.astype(np.float64)
    slope = precision.times(offset)
    distance = np.maximum((offset * slope).sum(axis=2), TINY)
    rows, total = np.arange(len(features)), distance.sum(axis=1)
    own = distance[rows, label]
    # d D_c / d f = 2 P (f - centre_c).
    cotangent = 2 * (slope[rows, label] / own[:, np.newaxis] - slope.sum(axis=1) / total[:, np.newaxis])
    return Value(np.log(own / total).astype(np.float32), cotangent.astype(np.float32), of_features=True)
