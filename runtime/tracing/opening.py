"""A tracer where the configuration asks for one; its packages are imported then, and not before."""

from __future__ import annotations

from acclimate.runtime.config_tracing import Tracing
from acclimate.runtime.metrics.process import version
from acclimate.runtime.tracing.base import Tracer


def opened(config: Tracing) -> Tracer | None:
    """What sends traces to the configured collector, or None.

    Raises:
        ModuleNotFoundError: OpenTelemetry is not installed.
    """
    if not config.endpoint:
        return None
    from acclimate.runtime.tracing.otel import tracer_of

    return tracer_of(config, version())
