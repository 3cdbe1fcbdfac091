"""Callers who were turned away."""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue.rows import ProcessMetric

ROWS = (
    ProcessMetric(
        "auth_failures_total", "counter", "Callers turned away: credential missing, malformed or wrong, role "
        "forbidden, or another tenant named.", lambda s: s.auth_failures, ("reason",),
    ),
    ProcessMetric(
        "quota_refusals_total", "counter", "Times that a tenant asked for more than its quota of something; of "
        "adaptation, steps not taken.", lambda s: s.quota_refusals, ("quota",),
    ),
)  # fmt: skip
