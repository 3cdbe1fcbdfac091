"""Figures over all live sessions, in arrays, so that a scrape of ten thousand sessions walks none of them.

Whoever changes a session names it; whoever reads copies the figures of those that were named since the last reading
into their rows, and sums columns. What nobody touches costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.signals import SIGNALS
from acclimate.adapters.watch import SENSITIVITY
from acclimate.runtime.figures import ListedSession, ModelCensus
from acclimate.runtime.sessions.session import Session, SessionKey
from acclimate.runtime.sessions.states import SessionState

LIVE = tuple(state for state in SessionState if state is not SessionState.CLOSED)
CODE: dict[SessionState, int] = {state: number for number, state in enumerate(LIVE)}
MANY = 512
"""Changed sessions whose rows are brought up to date by whoever names the last, so that no reader has much to do."""
FREE = -1
FIELDS = np.dtype(
    [
        ("model", np.int32),
        ("state", np.int8),
        ("samples", np.int64),
        ("buffered", np.int32),
        ("state_bytes", np.int64),
        ("snapshots", np.int32),
        ("snapshot_bytes", np.int64),
        ("distance", np.float64),
        ("drift", np.float64, (len(SIGNALS),)),
        ("estimated", np.float64),
        ("rollbacks", np.int64),
    ]
)
# Levels of different signals compare as shares of what their detectors take for a change.
SCALE = np.array([SENSITIVITY[signal][1] for signal in SIGNALS])

Rows = NDArray[np.intp]


class Census:
    """Rows of figures, one a live session. Safe from any thread; `changed` never waits for a reading.

    Args:
        find: the live session of a key, or None.
        top: sessions that each ranking lists.
    """

    def __init__(self, find: Callable[[SessionKey], Session | None], top: int = 0) -> None:
        self._find = find
        self._top = top
        self._naming, self._reading = threading.Lock(), threading.Lock()
        self._named: set[SessionKey] = set()
        self._place: dict[SessionKey, int] = {}
        self._keys: dict[int, SessionKey] = {}
        self._free: list[int] = []
        self._models: dict[str, int] = {}
        self._rows = np.zeros(0, FIELDS)
        self._known: dict[str, ModelCensus] = {}
        self._listed: dict[tuple[str, str], list[int]] = {}

    def changed(self, key: SessionKey) -> None:
        """The session of this key came, went, or is not what it was."""
        with self._naming:
            self._named.add(key)
            many = len(self._named) >= MANY
        if many and self._reading.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._reading.release()

    def of(self, model: str) -> ModelCensus:
        """The figures of one model's sessions as they are now."""
        with self._reading:
            self._refresh()
            known = self._known.get(model)
            if known is None:
                known = self._known[model] = self._computed(model)
            return known

    def _computed(self, model: str) -> ModelCensus:
        own = np.flatnonzero(self._rows["model"] == self._models.get(model, FREE - 1))
        rows = self._rows[own]
        counts = np.bincount(rows["state"], minlength=len(LIVE)).tolist()
        levels = rows["drift"] if len(rows) else np.zeros((1, len(SIGNALS)))
        return ModelCensus(
            sessions={state.value: count for state, count in zip(LIVE, counts, strict=True)},
            buffered=int(rows["buffered"].sum()),
            state_bytes=int(rows["state_bytes"].sum()),
            snapshots=int(rows["snapshots"].sum()),
            snapshot_bytes=int(rows["snapshot_bytes"].sum()),
            theta_distance_max=float(rows["distance"].max(initial=0.0)),
            drift_max=dict(zip(SIGNALS, levels.max(axis=0).tolist(), strict=True)),
            drift_mean=dict(zip(SIGNALS, levels.mean(axis=0).tolist(), strict=True)),
            listed=self._worst(model, own) if self._top else (),
        )

    def _worst(self, model: str, own: Rows) -> tuple[ListedSession, ...]:
        """The sessions that lead in drift, in roll-backs, or trail in estimated accuracy."""
        rows = self._rows[own]
        rankings = {
            "drift": (rows["drift"] / SCALE).max(axis=1),
            "accuracy": np.where(rows["samples"] > 0, 1 - rows["estimated"], 0.0),
            "rollbacks": rows["rollbacks"].astype(np.float64),
        }
        listed = dict.fromkeys(
            place for name, badness in rankings.items() for place in self._ranked((model, name), own, badness)
        )
        return tuple(self._entry(place) for place in listed)

    def _ranked(self, ranking: tuple[str, str], own: Rows, badness: NDArray[np.float64]) -> list[int]:
        """Places of the worst, as they were listed before where they are still among twice as many.

        Two sessions that take turns on the last place would otherwise begin a series each at every scrape.
        """
        order = own[np.argsort(-badness, kind="stable")[: 2 * self._top]].tolist()
        worst = [place for place in order if badness[np.searchsorted(own, place)] > 0]
        kept = [place for place in self._listed.get(ranking, ()) if place in worst]
        listed = (kept + [place for place in worst if place not in kept])[: self._top]
        self._listed[ranking] = listed
        return listed

    def _entry(self, place: int) -> ListedSession:
        key, row = self._keys[place], self._rows[place]
        return ListedSession(
            tenant=key[0],
            session_id=key[2],
            drift=dict(zip(SIGNALS, row["drift"].tolist(), strict=True)),
            estimated_accuracy=float(row["estimated"]) if row["samples"] else None,
            rollbacks=int(row["rollbacks"]),
            theta_distance=float(row["distance"]),
        )

    def _refresh(self) -> None:
        with self._naming:
            named, self._named = self._named, set()
        if named:
            self._known = {}
        places, values = [], []
        for key in named:
            session = self._find(key)
            if session is None:
                self._leave(key)
            else:
                places.append(self._at(key))
                values.append(self._row(session))
        if places:
            # Column by column: NumPy takes several times as long to make rows of tuples.
            for name, column in zip(FIELDS.names or (), zip(*values, strict=True), strict=True):
                self._rows[name][places] = column

    def _leave(self, key: SessionKey) -> None:
        place = self._place.pop(key, None)
        if place is not None:
            self._rows["model"][place] = FREE
            del self._keys[place]
            self._free.append(place)
            for listed in self._listed.values():
                if place in listed:
                    listed.remove(place)

    def _at(self, key: SessionKey) -> int:
        place = self._place.get(key)
        if place is None:
            if not self._free:
                self._grow()
            place = self._place[key] = self._free.pop()
            self._keys[place] = key
        return place

    def _grow(self) -> None:
        before, after = len(self._rows), max(64, 2 * len(self._rows))
        rows = np.zeros(after, FIELDS)
        rows["model"] = FREE
        rows[:before] = self._rows
        self._rows = rows
        self._free += range(after - 1, before - 1, -1)

    def _row(self, session: Session) -> tuple[Any, ...]:
        # The loop's thread may add a snapshot meanwhile; list() of a dict's values is one step for the interpreter.
        held = list(session.snapshots.values())
        snapshot_bytes = sum(snapshot.nbytes for snapshot in held) if held else 0
        account = session.account
        return (
            self._models.setdefault(session.model, len(self._models)),
            CODE.get(session.state, 0),  # Closed, since it was found; it is named again then.
            account.samples,
            len(session.buffer),
            session.cohort.bank.row_bytes + session.buffer.nbytes + session.earlier_bytes + snapshot_bytes,
            len(held),
            snapshot_bytes,
            session.distance,
            session.drift,
            session.telemetry.above,
            account.rollbacks.total() if account.rollbacks else 0,
        )
