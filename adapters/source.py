"""The source model as the algorithms see it: its parameters, statistics and what was measured at export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.errors import LayoutError
from acclimate.adapters.features import FeatureStatistics
from acclimate.adapters.layout import Float, Layout
from acclimate.adapters.manifest import Calibration


@dataclass(frozen=True)
class Source:
    """Arrays and figures of the unadapted model, shared read-only by all its sessions.

    Attributes:
        parameters: layout of `theta`.
        statistics: layout of `stats`.
        theta: `[P]` source parameters.
        stats: `[Q]` source normalisation statistics.
        fisher: `[P]` diagonal Fisher, EATA's form: mean over batches of 64 of the squared batch gradient of
            the cross-entropy with the model's own labels (Niu et al. 2022, eq. 9).
        class_prior: `[C]` mean predicted probabilities on calibration data.
        canary_inputs: `[K, ...]` source samples for the guard, in the model's input dtype.
        canary_labels: `[K]` their labels, or the source model's own answers where none were given.
        calibration: figures on calibration data.
        features: figures of the input of the last linear layer, or None: the bundle has none.
        entropy_histogram: `[N]` shares of calibration samples by entropy, in equal bins from 0 to ln C; `[0]` if the
            bundle has none.
        confidence_histogram: `[N]` the same by confidence, from 0 to 1.
    """

    parameters: Layout
    statistics: Layout
    theta: Float
    stats: Float
    fisher: Float
    class_prior: Float
    canary_inputs: NDArray[Any]
    canary_labels: NDArray[np.int64]
    calibration: Calibration
    features: FeatureStatistics | None = None
    entropy_histogram: Float = field(default_factory=lambda: np.zeros(0, np.float32))
    confidence_histogram: Float = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_prior)


def histogram(tensors: Mapping[str, NDArray[Any]], name: str) -> Float:
    """The shares `histogram.{name} [N]` among the arrays of `source.safetensors`; `[0]` if there are none.

    Raises:
        LayoutError: they are not finite float32 of one axis.
    """
    array = tensors.get(f"histogram.{name}", np.zeros(0, np.float32))
    if array.ndim != 1 or array.dtype != np.float32 or not np.isfinite(array).all():
        raise LayoutError(
            f"'histogram.{name}' is {array.dtype.name} of shape {array.shape}; expected finite float32 [N]"
        )
    return array.copy()
