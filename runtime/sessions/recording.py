"""A session as a record, and a record as a session again: bit for bit, on this daemon or another one.

`record_of` reads a session, `fill_row` writes a record's arrays into a row of a bank, `reinstate` makes a new
session what the record says. Samples that wait and answers that labels may follow are users' inputs; they are not
part of a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters import budget
from acclimate.adapters.bank import SessionBank
from acclimate.adapters.errors import LayoutError
from acclimate.adapters.fields import STATS, STEPS, STRIKES, THETA
from acclimate.adapters.manifest import Manifest
from acclimate.adapters.signals import SIGNALS
from acclimate.runtime.engines.base import Folded
from acclimate.runtime.errors import FailedPrecondition
from acclimate.runtime.generation.model import Model
from acclimate.runtime.sessions.session import STEADY, Account, Session
from acclimate.runtime.sessions.snapshot import snapshot_of
from acclimate.runtime.sessions.states import SessionState
from acclimate.runtime.store.base import SessionRecord

EVERY = (THETA, STATS, STEPS, STRIKES, budget.TOKENS, budget.AT, budget.RATE, budget.CAPACITY)


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is recorded or reinstated.

    Attributes:
        wall: Unix seconds.
        budget: the time at which the session's budget stands, see `Learner.budget_time`.
        clock: which clock that is; moments of one clock compare without the wall's.
    """

    wall: float
    budget: float
    clock: str


def check_record(record: SessionRecord, manifest: Manifest) -> None:
    """Whether a record belongs to the served model.

    Raises:
        FailedPrecondition: it was learnt on another bundle, and the message names both; or it lacks a field that every
            session has, or its theta or statistics are not as long as the model's.
    """
    served = manifest.digest
    if record.bundle != served:
        raise FailedPrecondition(
            "BUNDLE_MISMATCH",
            f"session {record.session_id!r} was learnt on bundle {record.bundle[:16]} of model {record.model!r}; "
            f"served is {served[:16]} (version {manifest.version!r}); serve that bundle, or delete the session",
            session=record.session_id,
            recorded=record.bundle,
            served=served,
        )
    check_layout(record, manifest)


def check_layout(record: SessionRecord, manifest: Manifest) -> None:
    """Raise FailedPrecondition for a record that lacks a field of every session, or is not as long as the model's."""
    if missing := [name for name in EVERY if name not in record.fields]:
        raise _misfit(record, f"it lacks {missing}")
    for name, layout in ((THETA, manifest.parameters), (STATS, manifest.statistics)):
        given = record.fields[name]
        if given.shape != (layout.size,) or given.dtype != np.float32:
            raise _misfit(record, f"{name} is {given.dtype.name} {given.shape}, not float32 {(layout.size,)}")


def record_of(session: Session, now: Moment) -> SessionRecord:
    """The session as it is; arrays are copies."""
    return records_of([session], lambda _: now)[0]


def records_of(sessions: Sequence[Session], now: Callable[[Session], Moment]) -> list[SessionRecord]:
    """`record_of` for many sessions: their rows are gathered together."""
    mates: dict[int, list[Session]] = {}
    for session in sessions:
        mates.setdefault(id(session.cohort), []).append(session)
    records = {}
    for group in mates.values():
        rows = group[0].cohort.bank.gather([session.row for session in group])
        for place, session in enumerate(group):
            fields_of = {name: value[place] for name, value in rows.items()}
            records[session.key] = _recorded(session, fields_of, now(session))
    return [records[session.key] for session in sessions]


def _recorded(session: Session, row: Mapping[str, NDArray[Any]], now: Moment) -> SessionRecord:
    account = {entry.name: getattr(session.account, entry.name) for entry in fields(Account)}
    return SessionRecord(
        model=session.model,
        session_id=session.id,
        bundle=session.cohort.engine.manifest.digest,
        recipe=session.cohort.recipe.name,
        parameters=dict(session.cohort.parameters),
        state=session.state.value,
        version=session.version,
        created_at=session.created_at,
        last_used_at=session.last_used_at,
        recorded_at=now.wall,
        budget_clock=now.clock,
        budget_at=now.budget,
        distance=session.distance,
        drift=session.drift,
        telemetry=session.telemetry,
        account={name: dict(value) if isinstance(value, Counter) else value for name, value in account.items()},
        from_sequence=session.from_sequence,
        behind=session.behind,
        ttl_seconds=session.ttl_seconds,
        labels=session.labels,
        fields=row,
        tenant=session.tenant,
        snapshots={name: held.record for name, held in session.snapshots.items()},
    )


def fold_of(record: SessionRecord, engine: Model) -> Folded | None:
    """What answers the session, or None where the source's model does; safe on any thread.

    Raises:
        FailedPrecondition: see `check_record`.
    """
    check_record(record, engine.manifest)
    if not SessionState(record.state).adapted or record.behind:
        return None
    return engine.fold(np.array(record.fields[THETA]), np.array(record.fields[STATS]))


def fill_row(bank: SessionBank, row: int, record: SessionRecord, keep: str | None = None) -> None:
    """Set a row to the record's arrays, but those fields whose name starts with `keep`.

    A field that the record lacks takes the value of a new session's, and one that the bank lacks is left out: a
    detector of drift that the configuration has added or taken away.

    Raises:
        FailedPrecondition: a field has another shape or dtype. The row is as it was then.
    """
    before = bank.gather([row])
    bank.reset(row, keep)
    state = bank.gather([row])
    for name in state:
        if name in record.fields and (keep is None or not name.startswith(keep)):
            state[name] = np.asarray(record.fields[name])[np.newaxis]
    try:
        bank.scatter([row], state)
    except LayoutError as error:
        bank.scatter([row], before)
        raise _misfit(record, str(error)) from error


def _misfit(record: SessionRecord, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        "SESSION_STATE_MISFIT",
        f"session {record.session_id!r} was recorded under another layout ({why}); serve the bundle and the version "
        "that recorded it, or delete it",
        session=record.session_id,
        recipe=record.recipe,
    )


def reinstate(session: Session, record: SessionRecord, folded: Folded | None, now: Moment) -> None:
    """Make a new session what the record says; `folded` is `fold_of` the record.

    Its budget refills for the time that it was away, by the wall clock unless both moments are of one clock.

    Raises:
        FailedPrecondition: see `fill_row`. The session is as it was then.
    """
    bank, row = session.cohort.bank, session.row
    fill_row(bank, row, record)
    if now.clock != record.budget_clock:
        away = max(0.0, now.wall - record.recorded_at)
        state = bank.gather([row])
        state[budget.AT] += (now.budget - record.budget_at) - away
        bank.scatter([row], state)
    session.state = SessionState(record.state)
    session.version = record.version
    session.folded, session.behind = folded, record.behind
    session.distance = record.distance
    session.drift = record.drift if len(record.drift) == len(SIGNALS) else STEADY
    session.telemetry = record.telemetry
    session.account = account_of(record)
    session.created_at, session.last_used_at = record.created_at, record.last_used_at
    session.from_sequence = record.from_sequence
    session.ttl_seconds, session.labels = record.ttl_seconds, record.labels
    session.snapshots = {name: snapshot_of(name, held) for name, held in record.snapshots.items()}


def account_of(record: SessionRecord) -> Account:
    """The session's counters; one that the record does not know is 0."""
    account = Account()
    for entry in fields(Account):
        zero = getattr(account, entry.name)
        value = record.account.get(entry.name, zero)
        setattr(account, entry.name, Counter(value) if isinstance(zero, Counter) else value)
    return account
