"""Accuracy without labels, two ways.

Average thresholded confidence (Garg et al. 2022, arXiv 2201.04234): the share of predictions more confident than a
threshold that was set, at export, so that on source data the share equals the accuracy. Difference of confidences
(Guillory et al. 2021, arXiv 2107.03315): the source's accuracy less what mean confidence has lost since. Adaptation
by entropy raises confidence, so both flatter adapted sessions; `docs/benchmarks.md` says by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import Calibration
from acclimate.adapters.numerics import log_softmax


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Running means over a session's recent predictions, weighted `0.5 ** (age / half_life)`.

    Attributes:
        entropy: nats.
        confidence: probability of the answered class.
        above: share of predictions above the threshold: the estimated accuracy.
        weight: how much evidence the means hold, at most `1 / (1 - decay)`.
    """

    entropy: float = 0.0
    confidence: float = 0.0
    above: float = 0.0
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Prequential:
    """Accuracy of recent answers whose true label is known: the prequential estimate with a fading factor.

    Gama, Sebastiao and Rodrigues 2013, "On evaluating stream learning algorithms", section 3.4. `weight` is how many
    answers it is worth; before the first there is none.
    """

    accuracy: float = 0.0
    weight: float = 0.0


UNLABELLED = Prequential()


@dataclass(frozen=True, slots=True)
class Scores:
    """Per row `[B]`: entropy in nats, confidence, and answered class."""

    entropy: Float
    confidence: Float
    label: np.ndarray[tuple[int, ...], np.dtype[np.intp]]

    def of(self, rows: slice) -> Scores:
        """Those of some rows."""
        return Scores(self.entropy[rows], self.confidence[rows], self.label[rows])


def score(logits: Float) -> Scores:
    """Entropy, confidence and label of each row of logits `[B, C]`."""
    log_p = log_softmax(logits)
    return Scores(-(np.exp(log_p) * log_p).sum(axis=1), np.exp(log_p.max(axis=1)), logits.argmax(axis=1))


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of several answers, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return Scores(
        np.concatenate([part.entropy for part in parts]),
        np.concatenate([part.confidence for part in parts]),
        np.concatenate([part.label for part in parts]),
    )


def mean(values: NDArray[Any]) -> float:
    """The mean of values `[B]`; that of one value is itself, and most requests have one."""
    return float(values[0]) if len(values) == 1 else float(values.mean())


def observe(seen: Telemetry, scores: Scores, threshold: float, half_life: float = 128.0) -> Telemetry:
    """The running means after more predictions."""
    rows = len(scores.entropy)
    decay = 0.5 ** (rows / half_life)
    weight = seen.weight * decay + rows
    old, new = seen.weight * decay / weight, rows / weight
    return Telemetry(
        entropy=old * seen.entropy + new * mean(scores.entropy),
        confidence=old * seen.confidence + new * mean(scores.confidence),
        above=old * seen.above + new * mean(scores.confidence > threshold),
        weight=weight,
    )


def settle(seen: Prequential, labelled: int, correct: int, half_life: float = 128.0) -> Prequential:
    """The accuracy after the labels of `labelled` more answers, `correct` of which they confirm."""
    if labelled == 0:
        return seen
    kept = seen.weight * 0.5 ** (labelled / half_life)
    weight = kept + labelled
    return Prequential((kept * seen.accuracy + correct) / weight, weight)


def difference_of_confidences(seen: Telemetry, calibration: Calibration) -> float:
    """Estimated accuracy in [0, 1]: the source's, less the fall of mean confidence; 0 before any prediction.

    For bundles exported without labels `calibration.accuracy` is itself the mean confidence, and so is this.
    """
    if seen.weight == 0:
        return 0.0
    return min(1.0, max(0.0, calibration.accuracy - (calibration.mean_confidence - seen.confidence)))
