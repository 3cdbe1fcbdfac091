"""The section of the configuration that says when work is done."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from acclimate.runtime.config_adaptation import NonNegative, Section


class Scheduler(Section):
    """When work is done."""

    mode: Literal["background", "synchronous"] = Field(
        "background",
        description="background: answer, then learn; synchronous: predict, adapt, next (deterministic)",
    )
    max_batch: int = Field(32, ge=1, le=4096, description="samples predicted together, at most")
    max_delay_ms: NonNegative = Field(0.0, description="time a request may wait for company, milliseconds")
    max_queue: int = Field(1024, ge=1, description="requests waiting, at most; more are RESOURCE_EXHAUSTED")
    patience_ms: NonNegative = Field(
        250.0,
        description="how long a request may be expected to wait while the daemon keeps up, milliseconds; beyond it, "
        "and beyond 64 requests under way, more are RESOURCE_EXHAUSTED; 0: only max_queue bounds them",
    )
    overload_wait_ms: NonNegative = Field(
        2.0,
        description="the same once more comes than can be answered, milliseconds; longer where computing one takes "
        "longer",
    )
