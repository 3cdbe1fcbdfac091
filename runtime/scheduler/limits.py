"""Bounds of what is predicted together and of what is learnt together."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PredictorLimits:
    """Batch size in rows, delay in seconds to wait for a fuller one, and queue length in requests."""

    max_batch: int
    max_delay: float
    max_queue: int


@dataclass(frozen=True, slots=True)
class LearnerLimits:
    """Bounds of a step.

    Attributes:
        max_step_rows: samples of all its sessions together; max_commits: as many sessions, at most.
        slice_rows: rows per engine call where they are independent.
        patience: seconds a slice waits for waiting predictions before it runs all the same.
        sample_period: synchronous mode only: seconds of budget refill per sample a session was sent, in place of the
            clock, so that a replay spends as the first run did. None: the clock.
    """

    max_step_rows: int
    slice_rows: int
    patience: float
    sample_period: float | None = None
    max_commits: int = sys.maxsize
