"""The few sessions of each model that are named: the worst in drift, roll-backs or estimated accuracy."""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue.rows import SessionMetric

ROWS = (
    SessionMetric(
        "session_drift_level_ratio", "Level of each signal that tells drift, at the session's latest step; 0 is the "
        "source.", lambda s: s.drift, "signal",
    ),
    SessionMetric(
        "session_estimated_accuracy_ratio", "Accuracy of its recent answers, estimated without labels.",
        lambda s: s.estimated_accuracy,
    ),
    SessionMetric("session_rollbacks", "Its steps undone by a guard since it was opened.", lambda s: s.rollbacks),
    SessionMetric(
        "session_theta_distance_ratio", "Distance of its parameters from the source's, relative to the source's norm.",
        lambda s: s.theta_distance,
    ),
)  # fmt: skip
