"""Estimates of accuracy without labels, on predictions whose accuracy is known."""

import math

import numpy as np
import pytest

from acclimate.adapters.accuracy import Telemetry, difference_of_confidences, observe, score
from acclimate.adapters.manifest import Calibration

CALIBRATION = Calibration(accuracy=0.8, labelled=True, mean_confidence=0.85, mean_entropy=0.4, confidence_threshold=0.6)


def watched(*confidences: float) -> Telemetry:
    logits = np.stack([[math.log(c), math.log(1 - c)] for c in confidences]).astype(np.float32)
    return observe(Telemetry(), score(logits), CALIBRATION.confidence_threshold)


@pytest.mark.parametrize(("confidence", "expected"), [(0.85, 0.8), (0.65, 0.6), (0.99, 0.94)])
def test_the_estimate_falls_and_rises_with_confidence(confidence: float, expected: float) -> None:
    assert difference_of_confidences(watched(confidence, confidence), CALIBRATION) == pytest.approx(expected, abs=1e-5)


def test_the_estimate_is_a_share() -> None:
    sure = Calibration(0.99, True, 0.6, 0.4, 0.5)
    lost = Calibration(0.2, True, 0.999, 0.4, 0.5)
    assert difference_of_confidences(watched(0.999), sure) == 1
    assert difference_of_confidences(watched(0.5000001), lost) == 0
    assert difference_of_confidences(Telemetry(), CALIBRATION) == 0


def test_both_estimates_are_exact_for_a_calibrated_model() -> None:
    """Answers that are right as often as they are confident: the fall of confidence is the fall of accuracy."""
    draws = np.random.default_rng(0)
    confidence = draws.uniform(0.5, 0.9, size=20_000)
    right = draws.random(20_000) < confidence
    logits = np.stack([np.log(confidence), np.log(1 - confidence)], axis=1).astype(np.float32)
    seen = observe(Telemetry(), score(logits), 0.6, half_life=1e9)
    known = Calibration(0.8, True, 0.8, 0.4, 0.6)
    assert difference_of_confidences(seen, known) == pytest.approx(right.mean(), abs=0.01)
