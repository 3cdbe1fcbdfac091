"""The section of the configuration about what is measured and named."""

from __future__ import annotations

from pydantic import Field

from acclimate.runtime.config_adaptation import Section


class Metrics(Section):
    """What `/metrics` shows beyond plain counts."""

    top_sessions: int = Field(
        5,
        ge=0,
        le=100,
        description="sessions per model that are named by id in each of three rankings: those that drift most, are "
        "rolled back most, or seem to be answered worst; 0: none is named",
    )
    shadow_every: int = Field(
        64,
        ge=0,
        description="one of so many samples that adapted sessions answer is answered by the source's model as well, "
        "to tell whether adapting helps; 0: none",
    )
