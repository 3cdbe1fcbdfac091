"""Sessions whose model is replaced while they are open: which can be carried over, and how.

A session that has learnt something is carried over if the new bundle lays out parameters and statistics as the old
one did (equal digests), takes the same inputs and has as many classes, and if its parameters lie within the trust
region around the new source. Then theta and statistics stay what they are and are folded into the new model's graphs,
and the optimiser's moments stay with them, for they belong to the same parameters. Whatever else its recipe remembers
(detectors, pace, teachers, prototypes, checkpoints) was measured against the old source and begins anew at the
session's parameters, as for a seed; if the files of the two bundles are the same, all of it stays. Budget, counters,
waiting samples and remembered answers stay in any case. A step under way is computed for the old model, and dropped.

A session that has learnt nothing has nothing to lose: it is answered by the new source model, and set back to it if
the layouts, inputs or classes are others, for what it has gathered means nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from acclimate.adapters import budget
from acclimate.adapters.bank import State
from acclimate.adapters.distances import theta_distance
from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import Manifest
from acclimate.adapters.seeding import seed_state
from acclimate.runtime.engines.base import Engine, Folded
from acclimate.runtime.errors import FailedPrecondition
from acclimate.runtime.sessions.cohort import Cohort, CohortKey
from acclimate.runtime.sessions.session import Session

OPTIMISER = "optimiser."


class Unfit(StrEnum):
    """What becomes of sessions that cannot be carried over."""

    REFUSE = "refuse"
    RESET = "reset"
    DROP = "drop"


class Move(StrEnum):
    """What has become of a session."""

    CARRIED = "carried"
    RESET = "reset"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a session had learnt when it was looked at."""

    session: Session
    version: int
    theta: Float
    stats: Float


@dataclass(frozen=True, slots=True)
class Refolded:
    """The same, folded for another engine: for the parameters of `version`, and theta's distance from its source."""

    version: int
    folded: Folded
    distance: float


def learnt(sessions: Sequence[Session]) -> list[Learnt]:
    """Copies of what adapted sessions have learnt."""
    return [
        Learnt(s, s.version, s.cohort.bank.view(THETA, s.row), s.cohort.bank.view(STATS, s.row))
        for s in sessions
        if s.state.adapted
    ]


def refold(engine: Engine, items: Sequence[Learnt]) -> dict[Session, Refolded]:
    """Fold for another engine, whose parameters and statistics are laid out alike; takes a while, touches nothing."""
    return {
        item.session: Refolded(
            item.version,
            engine.fold(item.theta, item.stats),
            float(theta_distance(item.theta[np.newaxis], engine.source)[0]),
        )
        for item in items
    }


def misfit(old: Manifest, new: Manifest) -> str:
    """Why nothing that sessions of `old` have learnt can serve `new`; empty if it can."""
    if old.parameters.digest != new.parameters.digest:
        return f"its parameters_digest is {new.parameters.digest[:12]}…, not {old.parameters.digest[:12]}…"
    if old.statistics.digest != new.statistics.digest:
        return "its normalisation statistics are laid out otherwise"
    if old.inputs != new.inputs:
        return "its inputs are others"
    if len(old.classes) != len(new.classes):
        return f"it has {len(new.classes)} classes, not {len(old.classes)}"
    return ""


@dataclass(frozen=True)
class Plan:
    """What will become of each session of a model, decided before anything is changed.

    `cohorts` are the new ones by their keys, or why there can be none.
    """

    old: Manifest
    new: Engine
    cohorts: Mapping[CohortKey, Cohort | str]
    carried: Mapping[Session, Refolded | None]
    reset: Sequence[Session]
    dropped: Sequence[Session]


def plan(
    sessions: Sequence[Session],
    old: Engine,
    new: Engine,
    cohorts: Mapping[CohortKey, Cohort | str],
    refolded: Mapping[Session, Refolded],
    trust_radius: float,
    unfit: Unfit,
) -> Plan:
    """Decide for every session; `refolded` may be older than its session's parameters, which are folded again then.

    Raises:
        FailedPrecondition: sessions cannot be carried over, and `unfit` refuses, or their recipe has no place.
    """
    why = misfit(old.manifest, new.manifest)
    carried: dict[Session, Refolded | None] = {}
    lost: dict[Session, str] = {}
    unlearnt: list[Session] = []
    homeless: dict[Session, str] = {}
    for session in sessions:
        home = cohorts[session.cohort.key]
        if isinstance(home, str):
            homeless[session] = home
        elif not session.state.adapted:
            if why:
                unlearnt.append(session)
            else:
                carried[session] = None
        elif why:
            lost[session] = why
        else:
            latest = refolded.get(session)
            if latest is None or latest.version != session.version:
                latest = refold(new, learnt([session]))[session]
            if latest.distance > trust_radius:
                lost[session] = f"theta is {latest.distance:.3g} from its source; adaptation.trust_radius is less"
            else:
                carried[session] = latest
    if homeless and unfit is not Unfit.DROP:
        raise _unfit(new.manifest, homeless, len(sessions), "acclimate_sessions=drop closes them")
    if lost and unfit is Unfit.REFUSE:
        remedy = "acclimate_sessions=reset sets them back to the new source, and =drop closes them"
        raise _unfit(new.manifest, lost, len(sessions), remedy)
    if unfit is Unfit.DROP:
        return Plan(old.manifest, new, cohorts, carried, tuple(unlearnt), (*lost, *homeless))
    return Plan(old.manifest, new, cohorts, carried, (*unlearnt, *lost), ())


def carry(session: Session, refolded: Refolded | None, target: Plan) -> None:
    """Let a session go on under the new model."""
    cohort, old = _home(session, target), session.cohort.bank.gather([session.row])
    row = cohort.bank.allocate()
    if target.old.files == target.new.manifest.files:
        state = old
    else:
        state = _state(cohort, old, refolded is not None) | _budget(old)
    cohort.bank.scatter([row], state)
    session.cohort, session.row = cohort, row
    session.epoch += 1
    session.version += 1
    if refolded is not None:
        # Sessions that are behind their stream are answered by the source until they have caught up.
        session.folded = None if session.behind else refolded.folded
        session.distance = refolded.distance


def reset(session: Session, target: Plan) -> None:
    """Let a session begin again at the new model's source."""
    cohort, old = _home(session, target), session.cohort.bank.gather([session.row])
    row = cohort.bank.allocate()
    cohort.bank.scatter([row], cohort.bank.gather([row]) | _budget(old))
    session.cohort, session.row = cohort, row
    session.restore()
    session.answers.clear()


def _state(cohort: Cohort, old: State, adapted: bool) -> State:
    """A row `[1, ...]` of the new cohort: at the source, or at what the session has learnt."""
    source = cohort.engine.source
    if not adapted:
        return {name: np.asarray(value)[np.newaxis] for name, value in _template(cohort).items()}
    learnt_row = seed_state(cohort.recipe, source, old[THETA][0], old[STATS][0])
    row = {name: np.asarray(value)[np.newaxis] for name, value in learnt_row.items()}
    moments = {
        name: value
        for name, value in old.items()
        if name.startswith(OPTIMISER) and name in row and row[name].shape == value.shape
    }
    return row | moments


def _template(cohort: Cohort) -> State:
    return seed_state(cohort.recipe, cohort.engine.source, cohort.engine.source.theta, cohort.engine.source.stats)


def _budget(state: State) -> State:
    return {name: value for name, value in state.items() if name.startswith(budget.PREFIX)}


def _home(session: Session, target: Plan) -> Cohort:
    home = target.cohorts[session.cohort.key]
    if isinstance(home, str):
        raise TypeError(f"no cohort for {session.cohort.key}: {home}")
    return home


def _unfit(new: Manifest, unfit: Mapping[Session, str], total: int, remedy: str) -> FailedPrecondition:
    return FailedPrecondition(
        "SESSIONS_UNFIT",
        f"{len(unfit)} of {total} sessions of model {new.name!r} cannot go on with version {new.version!r}: "
        f"{next(iter(unfit.values()))}; {remedy}",
        model=new.name,
        version=new.version,
        sessions=len(unfit),
    )
