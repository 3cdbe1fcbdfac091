"""Looking without touching: sessions as they are, which does not count as using them, and all that happens to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from acclimate.adapters.signals import SIGNALS
from acclimate.runtime.events import EventHub
from acclimate.runtime.lifecycle import snapshot_view
from acclimate.runtime.lifecycle_types import SnapshotView
from acclimate.runtime.ranking import Glance
from acclimate.runtime.sessions.residency import Residency
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.types import Event, SessionView

# Sessions that are glanced at without letting other threads have a turn.
TOGETHER = 128


@dataclass(frozen=True, slots=True)
class Sight:
    """What whoever watches the daemon may ask of it."""

    residency: Residency
    hub: EventHub

    def glances(self) -> list[Glance]:
        """Every session in memory, whosever it is; safe from any thread."""
        glances = []
        for place, session in enumerate(self.residency.table):
            if session.open:
                glances.append(_glance(session))
            if place % TOGETHER == TOGETHER - 1:
                # Lets go of the interpreter: predictions need not wait for it until it is taken away.
                time.sleep(0)
        return glances

    def signals(self, tenant: str, model: str, session_id: str) -> tuple[float, tuple[float, ...]] | None:
        """Distance from the source and drift by signal of a session in memory; safe from any thread."""
        session = self.residency.table.at((tenant, model, session_id))
        return None if session is None else (session.distance, session.drift)

    def peek(self, model: str, session_id: str) -> SessionView | None:
        """One of the caller's sessions if it is in memory; on the event loop's thread only."""
        session = self.residency.table.find(model, session_id)
        return None if session is None else session.view(self.residency.moment(session).budget)

    def snapshots(self, model: str, session_id: str) -> list[SnapshotView]:
        """What is kept of one of the caller's sessions in memory, newest first; on the event loop's thread only."""
        session = self.residency.table.find(model, session_id)
        held = [] if session is None else [snapshot_view(session, kept) for kept in session.snapshots.values()]
        return sorted(held, key=lambda view: (-view.created_at, view.snapshot_id))

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every event of every tenant, on the event loop's thread; it must return at once."""
        self.hub.listeners.append(listener)


def _glance(session: Session) -> Glance:
    own, seen = session.account, session.telemetry
    level = max(session.drift)
    return Glance(
        model=session.model,
        session_id=session.id,
        tenant=session.tenant,
        recipe=session.cohort.recipe.name,
        state=session.state.answering.value,
        paused=session.paused,
        version=session.version,
        last_used_at=session.last_used_at,
        requests=own.requests,
        updates=own.updates,
        # A copy first: the loop's thread may add a reason meanwhile.
        rollbacks=sum(tuple(own.rollbacks.values())),
        restorations=own.restorations,
        entropy=seen.entropy if seen.weight else None,
        accuracy=seen.above if seen.weight else None,
        labelled_accuracy=own.labelled_correct / own.labelled if own.labelled else None,
        drift=max(level, 0.0),
        drift_signal=SIGNALS[session.drift.index(level)] if level > 0 else "",
    )
