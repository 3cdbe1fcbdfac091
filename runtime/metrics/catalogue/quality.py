"""How good answers are, as far as can be told, and how far streams and sessions are from the source."""

from __future__ import annotations

from acclimate.adapters.signals import SIGNALS
from acclimate.adapters.watch import Drift
from acclimate.runtime.metrics.catalogue.rows import ModelMetric

ROWS = (
    ModelMetric(
        "drift_level_max_ratio", "gauge", "Highest level among open sessions of each signal that tells drift; 0 is the "
        "source.", lambda m: m.drift_max, "signal", SIGNALS,
    ),
    ModelMetric(
        "drift_level_mean_ratio", "gauge", "Mean level over open sessions of each signal that tells drift.",
        lambda m: m.drift_mean, "signal", SIGNALS,
    ),
    ModelMetric(
        "drifts_total", "counter", "Changes found in sessions' streams, by what changed.", lambda m: m.drifts,
        "reason", tuple(drift.reason for drift in Drift if drift.reason),
    ),
    ModelMetric("entropy_nats", "histogram", "Entropy of served predictions.", lambda m: m.entropy),
    ModelMetric(
        "confidence_ratio", "histogram", "Probability of the answered class.", lambda m: m.confidence
    ),
    ModelMetric(
        "estimated_accuracy_ratio", "gauge", "Accuracy of recent predictions estimated without labels "
        "(average thresholded confidence); a model that grew overconfident flatters itself here.",
        lambda m: m.estimated_accuracy if m.observed else None,
    ),
    ModelMetric(
        "estimated_accuracy_doc_ratio", "gauge", "The same by difference of confidences: the source's accuracy less "
        "what mean confidence has lost since.", lambda m: m.estimated_accuracy_doc if m.observed else None,
    ),
    ModelMetric(
        "labelled_total", "counter", "Answers that a true label was sent for.", lambda m: m.labelled
    ),
    ModelMetric(
        "labelled_correct_total", "counter", "Answers that their true label confirmed.",
        lambda m: m.labelled_correct,
    ),
    ModelMetric(
        "prequential_accuracy_ratio", "gauge", "Accuracy of recent answers that a true label was sent for, older ones "
        "counting for less; no series before the first.", lambda m: m.prequential_accuracy,
    ),
    ModelMetric(
        "theta_distance_max_ratio", "gauge", "Largest distance of a session's parameters from the source's, "
        "relative to the source's norm.", lambda m: m.theta_distance_max,
    ),
)  # fmt: skip
