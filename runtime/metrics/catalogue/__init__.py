"""Every metric that the daemon exports: one table, in one module a subject.

Conventions (prometheus.io naming and instrumentation pages): prefix `acclimate_`, base units, `_total` on
counters, ratios from 0 to 1. Labels are of bounded cardinality: never a session, a client or anything else a
client chooses. A row in the module of its subject is all that a metric takes; `docs/metrics.md` is generated:
`python -m acclimate.runtime.metrics.catalogue > docs/metrics.md`.
"""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue import adaptation, process, quality, refusals, serving, sessions, store
from acclimate.runtime.metrics.catalogue.rows import ModelMetric, ProcessMetric, Row

PROCESS: tuple[ProcessMetric, ...] = (*process.ROWS, *store.ROWS, *refusals.ROWS)
"""Metrics of the whole daemon, in the order of the page."""

MODEL: tuple[ModelMetric, ...] = (*serving.ROWS, *sessions.ROWS, *adaptation.ROWS, *quality.ROWS)
"""Metrics with the label `model`, in the order of the page."""

ALL: tuple[Row, ...] = (*PROCESS, *MODEL)
"""Both, in the order of the page and of a scrape."""
