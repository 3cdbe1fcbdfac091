"""What a step did to each of its sessions, for whoever keeps the books."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.outcome import Outcome
from acclimate.runtime.sessions.session import Session


@dataclass(frozen=True, slots=True)
class StepReport:
    """One session's part in a step, for its account and for whoever watches. `ms` is its share of the cost.

    `restored` says why the session went back, if it did, and `restored_to` to which version, 0 being the source's;
    `drift` says what changed in its stream, if anything.
    """

    session: Session
    outcome: Outcome
    version_before: int
    restored: str
    restored_to: int
    drift: str
    samples: int
    selected: int
    forward_rows: float
    ms: float


def undone(session: Session, outcome: Outcome, rows: int, ms: float) -> StepReport:
    """The report of a step over `rows` samples that was not taken; `ms` is what it cost or would have."""
    return StepReport(session, outcome, session.version, "", 0, "", rows, 0, 0.0, ms)
