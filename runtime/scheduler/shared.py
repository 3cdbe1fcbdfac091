"""Adaptation time that sessions share: what the process grants to all of them, and a tenant's quota to its own."""

from __future__ import annotations

import math

import numpy as np

from acclimate.adapters import budget
from acclimate.adapters.bank import State
from acclimate.runtime.clock import Clock
from acclimate.runtime.security.quotas import Quotas

# Less than this lasts for nothing.
LEAST_MS = 1.0


def lasting(held_ms: float, rate_ms_per_s: float) -> float:
    """For how long, in milliseconds, a bucket lasts that is emptied by a millisecond each millisecond.

    It goes on filling meanwhile: at a rate of `r` milliseconds a millisecond, `b` in it last for `b / (1 - r)`.
    """
    if held_ms < LEAST_MS:
        return 0.0
    return math.inf if rate_ms_per_s >= 1e3 else held_ms / (1 - rate_ms_per_s / 1e3)


class SharedBudgets:
    """The bucket of the process, and those of tenants.

    Args:
        process: milliseconds per second and milliseconds at most, or None for no bound.
        quotas: of tenants, or None.
        clock: the time.
    """

    def __init__(self, process: tuple[float, float] | None, quotas: Quotas | None, clock: Clock) -> None:
        self._clock = clock
        self._quotas = quotas
        self._process: State | None = None
        if process is not None:
            fields = budget.template(*process, clock.monotonic())
            self._process = {name: value[np.newaxis] for name, value in fields.items()}

    def affordable(self, tenant: str, milliseconds: float) -> bool:
        """Whether process and tenant can pay for a step of this estimated cost."""
        now = self._clock.monotonic()
        if self._process is not None and not budget.affordable(self._process, milliseconds, now)[0]:
            return False
        return self._quotas is None or self._quotas.may_adapt(tenant, milliseconds)

    def allowance_ms(self, tenant: str) -> float:
        """Milliseconds that process and tenant let one lesson take that begins now; see `generation/purse.py`."""
        now, least = self._clock.monotonic(), math.inf
        if self._process is not None:
            least = lasting(float(budget.available(self._process, now)[0]), float(self._process[budget.RATE][0]))
        return least if self._quotas is None else min(least, lasting(*self._quotas.adaptation_left(tenant)))

    def spent(self, tenant: str, milliseconds: float) -> None:
        """Charge both for what one session's part in a step cost."""
        if self._process is not None:
            self._process |= budget.charge(self._process, np.array([milliseconds]), self._clock.monotonic())
        if self._quotas is not None:
            self._quotas.adapted(tenant, milliseconds)
