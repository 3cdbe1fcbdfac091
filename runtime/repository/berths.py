"""Rows in the banks of a new model, made ready for sessions before these move into them.

Folding and seeding take a while for each session, so they are done on a thread, from what the sessions had learnt when
they were looked at. Nobody else knows the new banks until the sessions have moved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from acclimate.adapters import budget
from acclimate.adapters.distances import theta_distance
from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.seeding import seed_state
from acclimate.runtime.engines.base import Folded
from acclimate.runtime.sessions.cohort import Cohort, CohortKey
from acclimate.runtime.sessions.session import Session

OPTIMISER = "optimiser."


@dataclass(frozen=True, slots=True)
class Seen:
    """A session as it was when it was looked at: theta `[P]` and statistics `[Q]` if it had learnt something."""

    session: Session
    version: int
    learnt: tuple[Float, Float] | None


@dataclass(frozen=True, slots=True)
class Berth:
    """A row for a session: at what it had learnt by `version`, folded, or at the source where `folded` is None."""

    cohort: Cohort
    row: int
    version: int
    folded: Folded | None
    distance: float


def look(sessions: Iterable[Session]) -> list[Seen]:
    """Look at sessions; a copy for each cohort, not for each session."""
    seen = []
    for cohort, members in _by_cohort(sessions):
        copies = cohort.bank.gather([s.row for s in members], (THETA, STATS))
        for session, theta, stats in zip(members, copies[THETA], copies[STATS], strict=True):
            seen.append(Seen(session, session.version, (theta, stats) if session.state.adapted else None))
    return seen


def prepare(
    seen: Sequence[Seen], cohorts: Mapping[CohortKey, Cohort | str], fits: bool, whole: bool
) -> dict[Session, Berth]:
    """A berth for each session whose cohort there is; `fits` and `whole` as for `berth`."""
    berths = {}
    for item in seen:
        home = cohorts.get(item.session.cohort.key)
        if isinstance(home, Cohort):
            berths[item.session] = berth(item, home, fits, whole)
    return berths


def berth(item: Seen, cohort: Cohort, fits: bool, whole: bool) -> Berth:
    """A row in `cohort`.

    Args:
        item: the session.
        cohort: on the new engine.
        fits: whether what the session has learnt means something there.
        whole: whether its whole row will be copied into this one, so that nothing has to be seeded.
    """
    row = cohort.bank.allocate()
    if item.learnt is None or not fits:
        return Berth(cohort, row, item.version, None, 0.0)
    theta, stats = item.learnt
    source = cohort.engine.source
    if not whole:
        state = seed_state(cohort.recipe, source, theta, stats)
        cohort.bank.write([row], {name: np.asarray(value)[np.newaxis] for name, value in state.items()})
    distance = float(theta_distance(theta[np.newaxis], source)[0])
    return Berth(cohort, row, item.version, cohort.engine.fold(theta, stats), distance)


def occupy(berths: Mapping[Session, Berth], whole: bool) -> None:
    """Move sessions into their berths with what they hold now: budget and optimiser's moments, or all of their row."""
    for cohort, members in _by_cohort(berths):
        home = berths[members[0]].cohort
        if whole:
            _copy(cohort, home, members, berths, cohort.bank.names)
        else:
            _copy(cohort, home, members, berths, _named(cohort, budget.PREFIX))
            adapted = [session for session in members if berths[session].folded is not None]
            moments = _named(cohort, OPTIMISER) & set(home.bank.names)
            _copy(cohort, home, adapted, berths, moments)
    for session, place in berths.items():
        session.cohort, session.row = place.cohort, place.row
        session.epoch += 1
        session.version += 1
        if place.folded is not None:
            # Sessions that are behind their stream are answered by the source until they have caught up.
            session.folded = None if session.behind else place.folded
            session.distance = place.distance


def vacate(berths: Iterable[Berth]) -> None:
    """Give back rows that nobody moves into."""
    for place in berths:
        place.cohort.bank.release(place.row)


def _copy(
    cohort: Cohort, home: Cohort, members: Sequence[Session], berths: Mapping[Session, Berth], names: Iterable[str]
) -> None:
    if not members:
        return
    fields = cohort.bank.gather([s.row for s in members], frozenset(names))
    home.bank.write([berths[s].row for s in members], fields)


def _named(cohort: Cohort, prefix: str) -> set[str]:
    return {name for name in cohort.bank.names if name.startswith(prefix)}


def _by_cohort(sessions: Iterable[Session]) -> list[tuple[Cohort, list[Session]]]:
    groups: dict[int, list[Session]] = defaultdict(list)
    for session in sessions:
        groups[id(session.cohort)].append(session)
    return [(members[0].cohort, members) for members in groups.values()]
