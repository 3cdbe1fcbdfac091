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

from acclimate.adapters.manifest import Manifest
from acclimate.runtime.errors import FailedPrecondition
from acclimate.runtime.repository.berths import Berth, berth, look, occupy
from acclimate.runtime.sessions.cohort import Cohort, CohortKey
from acclimate.runtime.sessions.session import Session


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
class Change:
    """From one bundle to another: why what sessions have learnt cannot go on, or empty, and whether all of it can."""

    old: Manifest
    new: Manifest

    @property
    def misfit(self) -> str:
        """Why nothing that sessions of the old have learnt can serve the new; empty if it can."""
        old, new = self.old, self.new
        if old.parameters.digest != new.parameters.digest:
            return f"its parameters_digest is {new.parameters.digest[:12]}…, not {old.parameters.digest[:12]}…"
        if old.statistics.digest != new.statistics.digest:
            return "its normalisation statistics are laid out otherwise"
        if old.inputs != new.inputs:
            return "its inputs are others"
        if len(old.classes) != len(new.classes):
            return f"it has {len(new.classes)} classes, not {len(old.classes)}"
        return ""

    @property
    def whole(self) -> bool:
        """Whether the two differ in what they say alone, so that a session's row means the same in both."""
        return not self.misfit and self.old.files == self.new.files


@dataclass(frozen=True, slots=True)
class Plan:
    """What will become of each session of a model, decided before anything is changed; `spare` are berths for none."""

    carried: Mapping[Session, Berth]
    reset: Mapping[Session, Berth]
    dropped: Sequence[Session]
    spare: Sequence[Berth]


def plan(
    sessions: Sequence[Session],
    change: Change,
    cohorts: Mapping[CohortKey, Cohort | str],
    ready: Mapping[Session, Berth],
    trust_radius: float,
    unfit: Unfit,
) -> Plan:
    """Decide for every session.

    Args:
        sessions: all of the model's.
        change: of its bundle.
        cohorts: the new ones by the keys of the old, or why there can be none.
        ready: berths made before; sessions that have changed since, or have none, get another.
        trust_radius: largest distance of theta from the new source.
        unfit: what becomes of sessions that cannot be carried over.

    Raises:
        FailedPrecondition: sessions cannot be carried over, and `unfit` refuses, or their recipe has no place.
    """
    why, whole = change.misfit, change.whole
    places = _places(sessions, cohorts, ready, not why, whole)
    homeless = {s: str(cohorts[s.cohort.key]) for s in sessions if s not in places}
    lost: dict[Session, str] = {}
    reset: list[Session] = []
    for session, place in places.items():
        if why and session.state.adapted:
            lost[session] = why
        elif why:
            reset.append(session)
        elif place.distance > trust_radius:
            lost[session] = f"theta is {place.distance:.3g} from its source; adaptation.trust_radius is less"
    if homeless and unfit is not Unfit.DROP:
        raise _refused(change.new, homeless, len(sessions), "acclimate_sessions=drop closes them")
    if lost and unfit is Unfit.REFUSE:
        remedy = "acclimate_sessions=reset sets them back to the new source, and =drop closes them"
        raise _refused(change.new, lost, len(sessions), remedy)
    dropped = [*homeless, *lost] if unfit is Unfit.DROP else list(homeless)
    if unfit is Unfit.RESET:
        reset += lost
    gone = {*dropped, *reset}
    carried = {session: place for session, place in places.items() if session not in gone}
    begun = {session: places[session] for session in reset}
    taken = {id(place) for place in (*carried.values(), *begun.values())}
    made = {id(place): place for place in (*ready.values(), *places.values())}
    return Plan(carried, begun, dropped, [place for key, place in made.items() if key not in taken])


def carry(target: Plan, change: Change) -> None:
    """Let sessions go on under the new model."""
    occupy(target.carried, change.whole)


def reset(target: Plan) -> None:
    """Let sessions begin again at the new model's source, with the budget they have."""
    occupy({s: Berth(b.cohort, b.row, b.version, None, 0.0) for s, b in target.reset.items()}, whole=False)
    for session in target.reset:
        # Restoring counts as the one change that this is.
        session.version -= 1
        session.restore()
        session.answers.clear()


def _places(
    sessions: Sequence[Session],
    cohorts: Mapping[CohortKey, Cohort | str],
    ready: Mapping[Session, Berth],
    fits: bool,
    whole: bool,
) -> dict[Session, Berth]:
    """A berth for every session whose recipe the new model can run."""
    places: dict[Session, Berth] = {}
    for session in sessions:
        home, made = cohorts[session.cohort.key], ready.get(session)
        if isinstance(home, str):
            continue
        if made is None or made.version != session.version or made.cohort is not home:
            made = berth(look([session])[0], home, fits, whole)
        places[session] = made
    return places


def _refused(new: Manifest, unfit: Mapping[Session, str], total: int, remedy: str) -> FailedPrecondition:
    return FailedPrecondition(
        "SESSIONS_UNFIT",
        f"{len(unfit)} of {total} sessions of model {new.name!r} cannot go on with version {new.version!r}: "
        f"{next(iter(unfit.values()))}; {remedy}",
        model=new.name,
        version=new.version,
        sessions=len(unfit),
    )
