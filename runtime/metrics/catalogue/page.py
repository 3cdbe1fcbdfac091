"""`docs/metrics.md`."""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue import ALL
from acclimate.runtime.metrics.catalogue.rows import PREFIX, line


def markdown() -> str:
    """The page."""
    values = [
        f"- `{PREFIX}{row.name}`: `{row.labels[-1]}` is one of {', '.join(f'`{value}`' for value in row.values)}."
        for row in ALL
        if row.values
    ]
    return _PAGE + "\n".join(map(line, ALL)) + _LABELS + "\n".join(values) + "\n"


_PAGE = """# Metrics

<!-- Generated: python -m acclimate.runtime.metrics.catalogue > docs/metrics.md -->

The HTTP port serves Prometheus metrics at `/metrics` (and `/healthz`, `/readyz`). Figures are read from the
daemon's own books when they are scraped. Only the last ones name
sessions, and only the worst `metrics.top_sessions` of a model in drift, roll-backs and estimated accuracy, so that
their number is bounded however many there are; for any session's figures ask `SessionService.GetSession`, for its
events `WatchSessions`. Of `acclimate_request_duration_seconds` the OpenMetrics form has exemplars: the id of a
request in each bucket, and its trace where tracing is on. `ops/prometheus/prometheus.yml` is a scrape
configuration to start from.

| metric | type | labels | meaning |
|---|---|---|---|
"""

_LABELS = """

Label values that are exported from the start, as 0:

"""
