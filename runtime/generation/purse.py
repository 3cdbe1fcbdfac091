"""What lessons may cost, and who pays: the session's bucket, and those it shares with the process and its tenant."""

from __future__ import annotations

import math

import numpy as np

from acclimate.adapters import budget
from acclimate.runtime.clock import Clock
from acclimate.runtime.errors import ResourceExhausted
from acclimate.runtime.scheduler.shared import LEAST_MS, SharedBudgets, lasting
from acclimate.runtime.sessions.session import Session


class Purse:
    """Touched on the event loop's thread only.

    Args:
        clock: the time.
        shared: buckets of the process and of tenants; None in synchronous mode, where lessons cost nothing.
    """

    def __init__(self, clock: Clock, shared: SharedBudgets | None) -> None:
        self._clock = clock
        self._shared = shared

    def allowance_ms(self, session: Session) -> float:
        """Milliseconds that a lesson of the session may take, if it begins now and nobody else spends anything."""
        if self._shared is None:
            return math.inf
        own = session.cohort.bank.gather([session.row], budget.FIELDS)
        held, rate = float(budget.available(own, self._clock.monotonic())[0]), float(own[budget.RATE][0])
        return min(lasting(held, rate), self._shared.allowance_ms(session.tenant))

    def refuse_empty(self, session: Session) -> None:
        """Raise ResourceExhausted if not even the shortest lesson can be paid for now."""
        if self.allowance_ms(session) < LEAST_MS:
            rate = float(session.cohort.bank.view(budget.RATE, session.row))
            raise ResourceExhausted(
                "BUDGET_EXHAUSTED",
                f"session {session.id!r}, its tenant or the process has no learning time left; wait for it to refill, "
                "or give the session a larger budget",
                retry_after_seconds=1.0 if rate > 0 else None,
                model=session.model,
                session=session.id,
            )

    def pay(self, session: Session, ms: float) -> None:
        """Charge what was computed for a session, committed or not."""
        if self._shared is None:
            return
        self._shared.spent(session.tenant, ms)
        if session.open:
            own = session.cohort.bank.gather([session.row], budget.FIELDS)
            session.cohort.bank.write([session.row], dict(budget.charge(own, np.array([ms]), self._clock.monotonic())))
