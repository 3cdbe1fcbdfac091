"""Adaptation time that sessions share: what the process grants to all of them, and a tenant's quota to its own."""

from __future__ import annotations

import numpy as np

from acclimate.adapters import budget
from acclimate.adapters.bank import State
from acclimate.runtime.clock import Clock
from acclimate.runtime.security.quotas import Quotas


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

    def spent(self, tenant: str, milliseconds: float) -> None:
        """Charge both for what one session's part in a step cost."""
        if self._process is not None:
            self._process |= budget.charge(self._process, np.array([milliseconds]), self._clock.monotonic())
        if self._quotas is not None:
            self._quotas.adapted(tenant, milliseconds)
