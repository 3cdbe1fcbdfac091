"""What a request lets be learnt from it, and what has become of that."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from acclimate.adapters.outcome import Outcome

OFF, GATHERED, QUEUED = "off", "gathered", "queued"


@dataclass(slots=True)
class Terms:
    """The terms of one request, and the fate of its samples.

    Attributes:
        allowance: milliseconds that steps over them may take; infinite for as many as budgets pay.
        resent: whether the request may have been answered before, under its id.
        fate: `off` (nothing is learnt), `gathered` (they wait for more), `queued` (a step is due), or what came of the
            latest step that ended before the reply: `applied`, `skipped:<reason>`, `rolled_back:<reason>`,
            `restored:<reason>`.
        ms: what steps that ended before the reply cost the session.
    """

    allowance: float = math.inf
    resent: bool = False
    fate: str = field(default=OFF, init=False)
    ms: float = field(default=0.0, init=False)

    def stepped(self, outcome: Outcome, restored: str, ms: float) -> None:
        """A step over the session's samples has ended."""
        if restored:
            self.fate = f"restored:{restored}"
        else:
            self.fate = f"{outcome.kind}:{outcome.reason}" if outcome.reason else outcome.kind
        if outcome is not Outcome.SKIPPED_BUDGET:
            self.ms += ms
