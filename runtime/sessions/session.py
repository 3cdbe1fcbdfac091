"""One session: its place in a cohort's bank, what serves it, and its account of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from acclimate.adapters import budget
from acclimate.adapters.accuracy import Telemetry, difference_of_confidences
from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.units import Example
from acclimate.adapters.outputs import AsIs
from acclimate.adapters.signals import SIGNALS
from acclimate.runtime.engines.base import Folded
from acclimate.runtime.security.caller import NOBODY
from acclimate.runtime.sessions.cohort import Cohort
from acclimate.runtime.sessions.gathering import AnswerLog, SampleBuffer
from acclimate.runtime.sessions.states import SessionEvent, SessionState, after
from acclimate.runtime.sessions.terms import Terms
from acclimate.runtime.types import Budget, ExportedSession, SessionView, named_tensors

if TYPE_CHECKING:
    from acclimate.runtime.sessions.snapshot import Snapshot

SessionKey = tuple[str, str, str]
STEADY = (0.0,) * len(SIGNALS)
UNSEEN = Telemetry()
# Batches that wait before a session with a pace is behind its stream: one is due, one may be gathering.
BEHIND = 3


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
    answered a request. `distance` is theta's relative distance from the source, `drift` the levels of `SIGNALS` at
    the latest step. `epoch` changes when a step under way must not be committed any more. `behind` sessions keep what
    they learnt, and are answered by the source's model until steps have caught up with their stream. A session that
    is not used for `ttl_seconds` is deleted for good; None: never. `charged` is what its tenant's quota counts of it,
    bytes. `pins` counts the requests that are under way, and `terms` are those of the request that waits for the
    session's next step, if one does. `earlier` are examples that a language model's session has learnt from and what it
    knows holds, for lessons that replay them; no store keeps them.
    """

    model: str
    id: str
    cohort: Cohort
    row: int
    created_at: float
    last_used_at: float
    buffer: SampleBuffer
    answers: AnswerLog
    tenant: str = NOBODY
    from_sequence: bool = False
    state: SessionState = SessionState.PRISTINE
    version: int = 0
    epoch: int = 0
    folded: Folded | None = None
    stepping: bool = False
    behind: bool = False
    ttl_seconds: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    charged: int = 0
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    pins: int = 0
    distance: float = 0.0
    drift: tuple[float, ...] = STEADY
    terms: Terms | None = None
    earlier: tuple[Example, ...] = ()
    telemetry: Telemetry = UNSEEN
    account: Account = field(default_factory=Account)

    @property
    def key(self) -> SessionKey:
        """Tenant, model and id; two tenants may have sessions of one model and id."""
        return self.tenant, self.model, self.id

    @property
    def open(self) -> bool:
        """Whether it can still be used."""
        return self.state is not SessionState.CLOSED

    @property
    def paused(self) -> bool:
        """Whether it does not learn."""
        return self.state.paused

    @property
    def state_bytes(self) -> int:
        """Bytes of its row in the bank, of the samples and examples it holds and of its snapshots."""
        return self.kept_bytes + self.buffer.nbytes + self.earlier_bytes

    @property
    def earlier_bytes(self) -> int:
        """The part of them that is examples of earlier lessons."""
        return sum(one.prompt.nbytes + one.completion.nbytes for one in self.earlier)

    @property
    def kept_bytes(self) -> int:
        """The part of them that a store keeps: its row and its snapshots."""
        return self.cohort.bank.row_bytes + sum(held.nbytes for held in self.snapshots.values())

    @property
    def due(self) -> bool:
        """Whether enough samples are gathered for a step that is not under way already."""
        rows = self.cohort.recipe.batch_rows
        return 0 < rows <= len(self.buffer) and not self.stepping and not self.paused

    @property
    def late(self) -> bool:
        """Whether so much waits to be learnt from that what answers is of a stream long past."""
        recipe = self.cohort.recipe
        return recipe.pace is not None and len(self.buffer) >= BEHIND * recipe.batch_rows

    @property
    def floats(self) -> tuple[Float, Float] | None:
        """Theta `[P]` and statistics `[Q]`, if answers take the float pass: their correction reads its features."""
        if not self.cohort.recipe.outputs.reads_features or not self.state.adapted:
            return None
        return self.cohort.bank.view(THETA, self.row), self.cohort.bank.view(STATS, self.row)

    def corrected(self, logits: Float, features: Float) -> Float:
        """Answers `[B, C]` as the recipe's output stage leaves them; what it remembers, only steps change."""
        cohort = self.cohort
        if cohort.recipe.outputs == AsIs() or not self.open:
            return logits
        group = np.zeros(len(logits), np.intp)
        state = cohort.bank.gather([self.row])
        return cohort.recipe.outputs.apply(cohort.engine.source, state, logits, group, features)[0]

    def knows(self, request_id: str, terms: Terms) -> bool:
        """Whether a request was sent again that the session has answered, and so learns from, already."""
        return terms.resent and request_id in self.answers

    def commit(self, folded: Folded, theta_distance: float) -> None:
        """Serve with new parameters, `theta_distance` away from the source's, from now on."""
        self.state = after(self.state, SessionEvent.COMMIT)
        self.folded, self.behind = folded, False
        self.distance = theta_distance
        self.version += 1

    def fall_behind(self) -> None:
        """Let the source's model answer, until a step has caught up."""
        self.folded, self.behind = None, True
        self.version += 1

    def restore(self) -> None:
        """Back to the source: everything learnt, remembered by filters, or waiting to be learnt from."""
        self.state = after(self.state, SessionEvent.RESTORE)
        self.cohort.bank.reset(self.row, keep=budget.PREFIX)
        self.buffer.clear()
        self.earlier = ()
        self.folded, self.behind = None, False
        self.distance = 0.0
        self.drift = STEADY
        self.version += 1
        self.epoch += 1

    def pause(self) -> None:
        """Learn nothing from now on; a step under way is not committed. What is learnt and gathered stays."""
        self.state = after(self.state, SessionEvent.PAUSE)
        self.epoch += 1

    def resume(self) -> None:
        """Learn again."""
        self.state = after(self.state, SessionEvent.RESUME)

    def close(self) -> None:
        """Give the row back; the session cannot be used afterwards."""
        self.state = after(self.state, SessionEvent.CLOSE)
        self.snapshots.clear()
        self.cohort.bank.release(self.row)
        self.buffer.clear()
        self.earlier = ()
        self.epoch += 1

    def view(self, now: float) -> SessionView:
        """The session as its owner sees it; `now` is the time of its budget, see `Learner.budget_time`."""
        bank, account, row = self.cohort.bank, self.account, [self.row]
        manifest = self.cohort.engine.manifest
        state = bank.gather(row, budget.FIELDS)
        return SessionView(
            model=self.model,
            session_id=self.id,
            recipe=self.cohort.recipe.name,
            recipe_parameters=self.cohort.parameters,
            state=self.state.answering.value,
            paused=self.paused,
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
            estimated_accuracy_doc=difference_of_confidences(self.telemetry, manifest.calibration),
            labelled=account.labelled,
            labelled_correct=account.labelled_correct,
            theta_distance=self.distance,
            drift=dict(zip(SIGNALS, self.drift, strict=True)),
            state_bytes=self.state_bytes,
            ttl_seconds=self.ttl_seconds,
            etag=etag(self),
            labels=dict(self.labels),
            tenant=self.tenant,
        )


def etag(session: Session) -> str:
    """A name for the session as a writer sees it: whose it is, what serves it, whether it learns, its settings.

    It changes with every step that is committed, but not with counters. Weak in the sense of RFC 9110, section 8.8.
    """
    bank = session.cohort.bank
    settings = (float(bank.view(name, session.row)) for name in (budget.RATE, budget.CAPACITY))
    seen = (session.model, session.id, session.created_at, session.version, session.state.value, *settings)
    text = repr((*seen, session.ttl_seconds, sorted(session.labels.items())))
    return f'W/"{blake2b(text.encode(), digest_size=8).hexdigest()}"'


def exported(session: Session) -> ExportedSession:
    """What the session has learnt, by the names of its model's layouts, all of one version."""
    manifest, bank = session.cohort.engine.manifest, session.cohort.bank
    return ExportedSession(
        model=session.model,
        session_id=session.id,
        model_version=manifest.version,
        version=session.version,
        parameters_digest=manifest.parameters.digest,
        parameters=named_tensors(manifest.parameters, bank.view(THETA, session.row)),
        statistics=named_tensors(manifest.statistics, bank.view(STATS, session.row)),
        lora=manifest.lora,
    )


def set_budget(session: Session, chosen: Budget, now: float) -> None:
    """Fill the session's bucket and say how fast it refills."""
    fields = budget.template(chosen.refill_ms_per_s, chosen.capacity_ms, now)
    session.cohort.bank.write([session.row], {name: np.array([value]) for name, value in fields.items()})


def in_use(session: Session | None) -> AbstractContextManager[None]:
    """Keep a session, if there is one, in memory while something is awaited on its behalf."""
    return _NOBODYS if session is None else _pinned(session)


_NOBODYS = nullcontext()


@contextmanager
def _pinned(session: Session) -> Iterator[None]:
    session.pins += 1
    try:
        yield
    finally:
        session.pins -= 1
