"""What sessions are given, and what a client may choose, checked before anything is changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.types import Budget

MAX_TTL_SECONDS = 10 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class Limits:
    """What the table gives every session, and how many it holds.

    `default_parameters` are those of the recipes that have them; a client's own come before them. Sessions of language
    models have defaults of their own.
    """

    max_sessions: int
    buffer_rows: int
    remembered_answers: int
    default_recipe: str
    default_parameters: Mapping[str, float]
    default_budget: Budget
    default_ttl_seconds: float | None = None
    language_recipe: str = ""
    language_budget: Budget = field(default_factory=lambda: Budget(0.0, 0.0))

    def recipe_of(self, writes: bool) -> str:
        """What a session that chooses none runs; `writes` says that its model writes texts."""
        return self.language_recipe if writes else self.default_recipe

    def budget_of(self, writes: bool) -> Budget:
        """What a session that chooses none may spend."""
        return self.language_budget if writes else self.default_budget


def checked_budget(chosen: Budget) -> Budget:
    """The budget, or InvalidArgument."""
    for name, value in (("refill_ms_per_s", chosen.refill_ms_per_s), ("capacity_ms", chosen.capacity_ms)):
        if not math.isfinite(value) or value < 0:
            raise InvalidArgument(
                "BUDGET_INVALID",
                f"budget.{name} is {value}; it must be finite and not negative",
                field=f"budget.{name}",
            )
    return chosen


def checked_ttl(seconds: float | None, default: float | None) -> float | None:
    """The time-to-live: the default where nothing is chosen, None (for ever) where 0 is.

    Raises:
        InvalidArgument: it is negative, or no number of seconds that a clock can be set to.
    """
    if seconds is None:
        return default
    if not 0 <= seconds <= MAX_TTL_SECONDS:
        raise InvalidArgument(
            "TTL_INVALID",
            f"ttl is {seconds:g} s; give 0 (the session stays until it is deleted) to {MAX_TTL_SECONDS} s",
            field="ttl",
            ttl_seconds=seconds,
        )
    return seconds or None
