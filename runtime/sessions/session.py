"""One session: its place in a cohort's bank, what serves it, and its account of itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from acclimate.adapters import budget
from acclimate.adapters.accuracy import Telemetry
from acclimate.adapters.layout import Float
from acclimate.adapters.outputs import AsIs
from acclimate.runtime.engines.base import Folded
from acclimate.runtime.sessions.cohort import Cohort
from acclimate.runtime.sessions.gathering import AnswerLog, SampleBuffer
from acclimate.runtime.sessions.states import SessionEvent, SessionState, after
from acclimate.runtime.types import Budget, SessionView

SessionKey = tuple[str, str]


@dataclass(slots=True)
class Account:
    """Counters since the session was opened; resets leave them alone."""

    requests: int = 0
    samples: int = 0
    updates: int = 0
    restorations: int = 0
    backward_samples: int = 0
    adaptation_ms: float = 0.0
    labelled: int = 0
    labelled_correct: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    rollbacks: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class Session:
    """Mutable, and touched on the event loop's thread only.

    `version` counts every change of what serves the session, resets included, and names the parameters that
    answered a request. `distance` is theta's relative distance from the source. `epoch` changes when a step under
    way must not be committed any more.
    """

    model: str
    id: str
    cohort: Cohort
    row: int
    created_at: float
    last_used_at: float
    buffer: SampleBuffer
    answers: AnswerLog
    from_sequence: bool = False
    state: SessionState = SessionState.PRISTINE
    version: int = 0
    epoch: int = 0
    folded: Folded | None = None
    stepping: bool = False
    distance: float = 0.0
    telemetry: Telemetry = field(default_factory=Telemetry)
    account: Account = field(default_factory=Account)

    @property
    def key(self) -> SessionKey:
        """Model and id."""
        return self.model, self.id

    @property
    def open(self) -> bool:
        """Whether it can still be used."""
        return self.state is not SessionState.CLOSED

    @property
    def due(self) -> bool:
        """Whether enough samples are gathered for a step that is not under way already."""
        rows = self.cohort.recipe.batch_rows
        return 0 < rows <= len(self.buffer) and not self.stepping

    def corrected(self, logits: Float) -> Float:
        """Answers `[B, C]` as the recipe's output stage leaves them; what it remembers, only steps change."""
        cohort = self.cohort
        if cohort.recipe.outputs == AsIs() or not self.open:
            return logits
        group = np.zeros(len(logits), np.intp)
        return cohort.recipe.outputs.apply(cohort.engine.source, cohort.bank.gather([self.row]), logits, group)[0]

    def commit(self, folded: Folded, theta_distance: float) -> None:
        """Serve with new parameters, `theta_distance` away from the source's, from now on."""
        self.state = after(self.state, SessionEvent.COMMIT)
        self.folded = folded
        self.distance = theta_distance
        self.version += 1

    def restore(self) -> None:
        """Back to the source: everything learnt, remembered by filters, or waiting to be learnt from."""
        self.state = after(self.state, SessionEvent.RESTORE)
        self.cohort.bank.reset(self.row, keep=budget.PREFIX)
        self.buffer.clear()
        self.folded = None
        self.distance = 0.0
        self.version += 1
        self.epoch += 1

    def close(self) -> None:
        """Give the row back; the session cannot be used afterwards."""
        self.state = after(self.state, SessionEvent.CLOSE)
        self.cohort.bank.release(self.row)
        self.buffer.clear()
        self.epoch += 1

    def view(self, now: float) -> SessionView:
        """The session as its owner sees it; `now` is the time of its budget, see `Learner.budget_time`."""
        bank, account, row = self.cohort.bank, self.account, [self.row]
        state = bank.gather(row)
        return SessionView(
            model=self.model,
            session_id=self.id,
            recipe=self.cohort.recipe.name,
            recipe_parameters=self.cohort.parameters,
            state=self.state.value,
            version=self.version,
            created_at=self.created_at,
            last_used_at=self.last_used_at,
            requests=account.requests,
            samples=account.samples,
            buffered=len(self.buffer),
            updates=account.updates,
            rollbacks=account.rollbacks.total(),
            restorations=account.restorations,
            skipped=dict(account.skipped),
            backward_samples=account.backward_samples,
            adaptation_ms=account.adaptation_ms,
            budget=Budget(float(state[budget.RATE][0]), float(state[budget.CAPACITY][0])),
            budget_available_ms=float(budget.available(state, now)[0]),
            mean_entropy=self.telemetry.entropy,
            mean_confidence=self.telemetry.confidence,
            estimated_accuracy=self.telemetry.above,
            labelled=account.labelled,
            labelled_correct=account.labelled_correct,
            theta_distance=self.distance,
            state_bytes=bank.row_bytes,
        )


def set_budget(session: Session, chosen: Budget, now: float) -> None:
    """Fill the session's bucket and say how fast it refills."""
    bank = session.cohort.bank
    fields = budget.template(chosen.refill_ms_per_s, chosen.capacity_ms, now)
    bank.scatter([session.row], bank.gather([session.row]) | {k: np.array([v]) for k, v in fields.items()})
