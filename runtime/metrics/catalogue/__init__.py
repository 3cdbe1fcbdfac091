"""Every metric that the daemon exports: one table, in one module a subject.

Conventions (prometheus.io naming and instrumentation pages): prefix `acclimate_`, base units, `_total` on
counters, ratios from 0 to 1. Labels are of bounded cardinality: nothing that a client chooses, but for the few
sessions that `metrics.top_sessions` has named. A row in the module of its subject is all that a metric takes;
`docs/metrics.md` is generated: `python -m acclimate.runtime.metrics.catalogue > docs/metrics.md`.
"""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue import (
    adaptation,
    admission,
    comparison,
    listed,
    process,
    quality,
    refusals,
    serving,
    sessions,
    store,
    tenants,
)
from acclimate.runtime.metrics.catalogue.rows import ModelMetric, ProcessMetric, Row, SessionMetric

PROCESS: tuple[ProcessMetric, ...] = (*process.ROWS, *admission.ROWS, *store.ROWS, *refusals.ROWS, *tenants.ROWS)
"""Metrics of the whole daemon, in the order of the page."""

MODEL: tuple[ModelMetric, ...] = (*serving.ROWS, *sessions.ROWS, *adaptation.ROWS, *quality.ROWS, *comparison.ROWS)
"""Metrics with the label `model`, in the order of the page."""

SESSION: tuple[SessionMetric, ...] = listed.ROWS
"""Metrics of the few sessions that are named."""

ALL: tuple[Row, ...] = (*PROCESS, *MODEL, *SESSION)
"""All, in the order of the page and of a scrape."""
