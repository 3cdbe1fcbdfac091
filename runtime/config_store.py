"""The section of the configuration that says where sessions are stored, and what a crash may lose of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from acclimate.runtime.config_adaptation import NonNegative, Section


class Store(Section):
    """The embedded store; without a path sessions live in memory and end with the process."""

    path: str = Field(
        "",
        description="SQLite file that sessions are stored in, made if it is not there; in a file relative to the file; "
        "empty: none",
    )
    loss_seconds: float = Field(
        1.0, ge=0.01, le=3600, allow_inf_nan=False,
        description="a crash loses no more than so many seconds of commits: learning waits where writing is slower",
    )  # fmt: skip
    loss_commits: int = Field(32, ge=1, le=1_000_000, description="and no more than so many commits")
    counter_seconds: NonNegative = Field(
        30.0, description="how often counters and budgets that changed without a commit are written, seconds"
    )
    synchronous: Literal["full", "normal"] = Field(
        "full", description="full: commits outlive a loss of power; normal: they outlive the process"
    )
    idle_seconds: NonNegative = Field(
        3600.0, description="sessions not used for so long leave memory and return when asked for, seconds; 0: never"
    )
    max_sessions: int = Field(1_000_000, ge=1, description="sessions stored, at most; those in memory are among them")
    parked_bytes: int = Field(
        2**26,
        ge=0,
        description="memory for the waiting samples, remembered answers and examples of sessions that left it, bytes",
    )
    unfit_sessions: Literal["refuse", "reset", "drop"] = Field(
        "refuse",
        description="what becomes of stored sessions that return when their model was replaced and cannot carry them "
        "over: refuse keeps them stored, reset lets them begin again, drop deletes them",
    )
    take_over: bool = Field(
        False, description="take sessions over even from another daemon that is alive; it will notice and drop them"
    )
