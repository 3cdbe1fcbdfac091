"""Whether there is room for one more request, and how many there was none for."""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue.rows import ProcessMetric
from acclimate.runtime.scheduler.admission import Refused

ROWS = (
    ProcessMetric(
        "requests_under_way", "gauge", "Inference requests that were taken and not yet answered.",
        lambda s: s.service.admission.under_way,
    ),
    ProcessMetric(
        "expected_wait_seconds", "gauge", "How long one more would wait, expected.",
        lambda s: s.service.admission.expected_wait,
    ),
    ProcessMetric(
        "overloaded", "gauge", "1 while more requests come than can be answered, else 0.",
        lambda s: s.service.admission.overloaded,
    ),
    ProcessMetric(
        "requests_refused_total", "counter", "Inference requests without room, by why.",
        lambda s: s.service.admission.refused, ("reason",), tuple(why.value for why in Refused),
    ),
)  # fmt: skip
