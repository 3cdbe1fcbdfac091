"""Stored sessions whose model was replaced while they were away: what becomes of them when they return.

The rules are those for sessions that are open when their model is replaced (`moving.py`), applied to a record instead
of a row, one session at a time, on the store's thread. What cannot be carried over is refused and left in the store as
it is, unless the operator, or whoever loaded the model, said that it is to be reset or dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters import budget
from acclimate.adapters.distances import theta_distance
from acclimate.adapters.errors import ManifestError
from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.manifest import Manifest
from acclimate.adapters.seeding import seed_state
from acclimate.runtime.errors import FailedPrecondition
from acclimate.runtime.generation.model import Model
from acclimate.runtime.repository.berths import OPTIMISER
from acclimate.runtime.repository.moving import Change, Move, Unfit
from acclimate.runtime.sessions.cohort import Cohort
from acclimate.runtime.sessions.recording import check_layout
from acclimate.runtime.sessions.session import STEADY
from acclimate.runtime.sessions.states import SessionEvent, SessionState, after
from acclimate.runtime.store.base import SessionRecord

Described = Callable[[str], str | None]
Home = Callable[[SessionRecord, Model], Cohort]


class Dropped(Exception):
    """The session cannot go on, and was to be dropped then."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A record as the served model has it; `move` is what became of the session, None where nothing had to."""

    record: SessionRecord
    move: Move | None = None


class Adoption:
    """Decides about records of other bundles than the served one. Safe from any thread, but for `decided`.

    Args:
        home: the cohort that a record's session belongs in, on an engine.
        trust_radius: largest distance of theta from the new source.
        unfit: what becomes of sessions that cannot be carried over, where no load of their model has said.
    """

    def __init__(self, home: Home, trust_radius: float, unfit: Unfit = Unfit.REFUSE) -> None:
        self._home = home
        self._trust_radius = trust_radius
        self._unfit = unfit
        self._chosen: dict[str, Unfit] = {}
        self._known: dict[str, Manifest] = {}

    def decided(self, old: Manifest, new: Manifest, unfit: Unfit) -> None:
        """A model was replaced, and `unfit` is what becomes of its sessions that cannot be carried over."""
        self._known[old.digest] = old
        self._chosen[new.name] = unfit

    def adopt(self, record: SessionRecord, engine: Model, described: Described) -> Adopted:
        """The record as `engine`'s model has it; `described` tells what the store knows of a bundle by its digest.

        Raises:
            FailedPrecondition: the session cannot go on; nothing is changed. Dropped: it is to be deleted instead.
        """
        served = engine.manifest
        if record.bundle == served.digest:
            return Adopted(record)
        old = self._bundle(record.bundle, described)
        change = None if old is None else Change(old, served)
        whole = change is not None and change.whole
        why = "nobody knows that bundle any more" if change is None else change.misfit
        adapted, unfit = SessionState(record.state).adapted, self._policy(record.model)
        try:
            cohort = self._home(record, engine)
        except FailedPrecondition:
            if unfit is Unfit.DROP:
                raise Dropped from None
            raise
        if adapted and not why:
            check_layout(record, served)
            distance = float(theta_distance(np.asarray(record.fields[THETA])[np.newaxis], engine.source)[0])
            if distance <= self._trust_radius:
                return Adopted(_carried(record, cohort, distance, whole), Move.CARRIED)
            why = f"theta is {distance:.3g} from its source; adaptation.trust_radius is less"
        if not adapted:
            # Who has learnt nothing has nothing to lose.
            begun = _carried(record, cohort, 0.0, whole) if whole else _begun(record, cohort)
            return Adopted(begun, Move.RESET if why else Move.CARRIED)
        if unfit is Unfit.DROP:
            raise Dropped
        if unfit is Unfit.RESET:
            return Adopted(_begun(record, cohort), Move.RESET)
        raise _refused(record, served, why)

    def _policy(self, model: str) -> Unfit:
        chosen = self._chosen.get(model, Unfit.REFUSE)
        return self._unfit if chosen is Unfit.REFUSE else chosen

    def _bundle(self, digest: str, described: Described) -> Manifest | None:
        """The manifest of a bundle that was served once, as far as its description tells."""
        known = self._known.get(digest)
        if known is None and (text := described(digest)) is not None:
            try:
                known = self._known[digest] = Manifest.from_json(json.loads(text))
            except (ManifestError, ValueError):
                # Stores that older builds wrote describe their bundles in part.
                return None
        return known


def _carried(record: SessionRecord, cohort: Cohort, distance: float, whole: bool) -> SessionRecord:
    """What the session learnt, in the new model; what was measured against the old source begins anew."""
    fields: dict[str, NDArray[Any]] = dict(record.fields)
    if not whole:
        source = cohort.engine.source
        fields = dict(seed_state(cohort.recipe, source, np.array(fields[THETA]), np.array(fields[STATS])))
        moments = {n: v for n, v in record.fields.items() if n.startswith(OPTIMISER) and _same(v, fields.get(n))}
        fields |= moments | _budget(record)
    return replace(
        record, bundle=cohort.engine.manifest.digest, fields=fields, distance=distance, version=record.version + 1
    )


def _begun(record: SessionRecord, cohort: Cohort) -> SessionRecord:
    """The session at the new source, with the budget it has."""
    source = cohort.engine.source
    fields = dict(seed_state(cohort.recipe, source, source.theta, source.stats)) | _budget(record)
    return replace(
        record,
        bundle=cohort.engine.manifest.digest,
        fields=fields,
        state=after(SessionState(record.state), SessionEvent.RESTORE).value,
        version=record.version + 1,
        distance=0.0,
        drift=STEADY,
        behind=False,
    )


def _budget(record: SessionRecord) -> dict[str, NDArray[Any]]:
    return {name: value for name, value in record.fields.items() if name.startswith(budget.PREFIX)}


def _same(value: NDArray[Any], other: NDArray[Any] | None) -> bool:
    return other is not None and (value.shape, value.dtype) == (np.shape(other), np.asarray(other).dtype)


def _refused(record: SessionRecord, served: Manifest, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        "BUNDLE_MISMATCH",
        f"session {record.session_id!r} was learnt on bundle {record.bundle[:16]} of model {record.model!r} and cannot "
        f"go on with {served.digest[:16]} (version {served.version!r}): {why}; serve that bundle, delete the session, "
        "or load the model with acclimate_sessions=reset or =drop",
        session=record.session_id,
        recorded=record.bundle,
        served=served.digest,
    )
