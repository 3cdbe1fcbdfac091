"""What a request is found by: its id, and the trace that it is part of where tracing is on.

A histogram's exemplar carries them, so that a slow bucket leads to one request that was slow (OpenMetrics 1.0,
"Exemplars": at most 128 characters of names and values together).
"""

from __future__ import annotations

import sys

LONGEST_ID = 64


def request_labels(request_id: str) -> dict[str, str]:
    """Labels of an exemplar; an id that is too long to be one is left out, and none there are no labels."""
    labels = {"request_id": request_id} if 0 < len(request_id) <= LONGEST_ID else {}
    # Whoever traces has imported it; without it there is no current span to ask for.
    tracing = sys.modules.get("opentelemetry.trace")
    if tracing is not None:
        context = tracing.get_current_span().get_span_context()
        if context.is_valid:
            labels["trace_id"] = f"{context.trace_id:032x}"
    return labels
