"""The section of the configuration about the web page on the HTTP port, and what it remembers."""

from __future__ import annotations

from pydantic import Field

from acclimate.runtime.config_adaptation import Section


class Web(Section):
    """The page and its API; metrics and health are there without it."""

    enabled: bool = Field(True, description="serve the web page and its API on the HTTP port")
    sample_seconds: float = Field(
        2.0, ge=0.1, le=3600, allow_inf_nan=False, description="time between two points of the page's charts, seconds"
    )
    history_samples: int = Field(
        900, ge=2, le=100_000, description="points that are remembered of each model and of `history_sessions` sessions"
    )
    history_sessions: int = Field(
        100,
        ge=0,
        le=100_000,
        description="sessions whose points are remembered: those being looked at, then those that drift most; each "
        "takes 48 bytes a point",
    )
    history_events: int = Field(
        2000, ge=0, le=1_000_000, description="events other than steps that are remembered, of all sessions together"
    )
