"""Requests, what they waited for, and the engine."""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue.rows import CODES, ModelMetric

ROWS = (
    ModelMetric(
        "requests_total", "counter", "Inference requests by status code.", lambda m: m.requests, "code", CODES
    ),
    ModelMetric("samples_total", "counter", "Samples answered.", lambda m: m.samples),
    ModelMetric(
        "request_duration_seconds", "histogram", "From arrival of a request to its answer.",
        lambda m: m.request_seconds,
    ),
    ModelMetric(
        "queue_duration_seconds", "histogram", "From arrival of a request to the engine.",
        lambda m: m.queue_seconds,
    ),
    ModelMetric(
        "predict_duration_seconds", "histogram", "In the engine, per batch.", lambda m: m.predict_seconds
    ),
    ModelMetric("batch_samples", "histogram", "Samples predicted together.", lambda m: m.batch_size),
    ModelMetric(
        "specialised_sessions", "gauge", "Sessions answered by a graph of their own.", lambda m: m.specialised
    ),
    ModelMetric(
        "specialisations_total", "counter", "Graphs made for one session.", lambda m: m.specialisations
    ),
    ModelMetric(
        "specialisations_evicted_total", "counter", "Graphs of one session given up for another's.",
        lambda m: m.specialisations_evicted,
    ),
)  # fmt: skip
