"""Whether adapting helps: samples that both an adapted session and the source's model answered."""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue.rows import ModelMetric

ANSWERS = ("adapted", "frozen")

ROWS = (
    ModelMetric(
        "shadow_samples_total", "counter", "Samples of adapted sessions that the source's model answered as well, to "
        "compare.", lambda m: m.comparison.samples,
    ),
    ModelMetric(
        "shadow_disagreed_total", "counter", "Those of them that the two answered differently.",
        lambda m: m.comparison.disagreed,
    ),
    ModelMetric(
        "shadow_confident_total", "counter", "Those answered above the bundle's confidence threshold, by whose answer "
        "it is: as a share of `acclimate_shadow_samples_total`, accuracy estimated without labels.",
        lambda m: m.comparison.confident, "answer", ANSWERS,
    ),
    ModelMetric(
        "shadow_labelled_total", "counter", "Those that a true label was sent for.", lambda m: m.comparison.labelled
    ),
    ModelMetric(
        "shadow_correct_total", "counter", "Labelled ones answered right, by whose answer it is.",
        lambda m: m.comparison.correct, "answer", ANSWERS,
    ),
)  # fmt: skip
