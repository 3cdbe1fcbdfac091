"""What a crash may lose, and how long whoever wants to add to it waits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a crash may lose.

    Attributes:
        seconds: no commit is made while one is unwritten for longer.
        commits: at most as many are unwritten; steps are of no more sessions than that.
        counter_seconds: counters and budgets that changed since the latest commit are written as often.
        hurry: share of the first two at which a write begins, so that the learner seldom has to wait for one.
    """

    seconds: float
    commits: int
    counter_seconds: float
    hurry: float = 0.5


class Patience(Enum):
    """How long a step waits for room: as long as it takes, unless the store fails, or not at all."""

    ENDLESS = "endless"
    UNLESS_FAILING = "unless_failing"
    NONE = "none"
