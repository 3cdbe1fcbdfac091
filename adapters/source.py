"""The source model as the algorithms see it: its parameters, statistics and what was measured at export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

    @property
    def classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_prior)
