"""What the page's charts show: points of every model and of the sessions that deserve it, and events.

Points are taken off the event loop's thread, from figures that any thread may read; only events are noted on it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from acclimate.adapters.signals import SIGNALS
from acclimate.runtime.config_web import Web
from acclimate.runtime.event_types import STEPS
from acclimate.runtime.ranking import Glance, Sort, ranked
from acclimate.runtime.sessions.session import SessionKey
from acclimate.runtime.sight import Sight
from acclimate.runtime.types import Event, ModelSnapshot, ServiceSnapshot
from acclimate.runtime.web.rings import Rings

MODEL_FIELDS = (
    "sessions", "requests", "entropy", "accuracy", "labelled_accuracy", "drift", "updates", "rollbacks",
    "restorations", "skipped", "adaptation_ms", "denied_ms",
)  # fmt: skip
DRIFTS = tuple(f"drift_{signal}" for signal in SIGNALS)
SESSION_FIELDS = (
    "entropy", "accuracy", "labelled_accuracy", "distance", *DRIFTS, "updates", "rollbacks", "restorations",
)  # fmt: skip
MAX_MODELS = 1000
# Points of the small charts in lists.
OUTLINE = 30
# A session is being looked at for so long after somebody asked for it.
LOOKED_AT_SECONDS = 60.0
# Glances younger than this are shown again.
FRESH_SECONDS = 0.5
# A session takes the place of another one only if it drifts this much more, and few do at a time.
MARGIN, CHANGES = 1.25, 8
# Points are taken less often where taking one is slow, so that it costs a share of one processor at most.
MAX_SHARE = 0.02


class History:
    """Rings of points, and the latest events; may be used from any thread."""

    def __init__(
        self,
        settings: Web,
        sight: Sight,
        snapshot: Callable[[], ServiceSnapshot],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._sight = sight
        self._snapshot = snapshot
        self._wall = wall
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self.models: Rings[str] = Rings(MODEL_FIELDS, settings.history_samples, MAX_MODELS)
        self.sessions: Rings[SessionKey] = Rings(SESSION_FIELDS, settings.history_samples, settings.history_sessions)
        self._events: deque[Event] = deque(maxlen=settings.history_events)
        self._last: dict[str, ModelSnapshot] = {}
        self._seen: dict[SessionKey, Glance] = {}
        self._entropies: dict[str, float] = {}
        self._viewed: dict[SessionKey, float] = {}
        self._glances: tuple[float, list[Glance]] = (float("-inf"), [])
        self.latest: ServiceSnapshot | None = None
        sight.listen(self.note)

    def note(self, event: Event) -> None:
        """Remember an event that is not a step."""
        if event.kind not in STEPS:
            self._events.append(event)

    def recent(self, tenant: str, model: str | None, session_id: str | None, count: int) -> list[Event]:
        """The latest events of a tenant, of one of its models or sessions, newest first."""
        found: list[Event] = []
        for event in reversed(tuple(self._events)):
            if len(found) == count:
                break
            if event.tenant == tenant and model in (None, event.model) and session_id in (None, event.session_id):
                found.append(event)
        return found

    def glances(self) -> list[Glance]:
        """Every session in memory, as it was half a second ago at most."""
        with self._looking:
            taken, glances = self._glances
            return glances if time.monotonic() - taken < FRESH_SECONDS else self._look()

    def look_at(self, key: SessionKey) -> None:
        """Somebody looks at a session: keep its points from now on, if any are kept."""
        with self._lock:
            self._viewed[key] = time.monotonic()

    def sample(self) -> float:
        """Take one point of everything; returns the processor time that it took, seconds."""
        began = time.thread_time()
        with self._looking:
            glances = self._look()
        snapshot, moment = self._snapshot(), self._wall()
        with self._lock:
            self._sample_models(snapshot, moment)
            self._sample_sessions(glances, moment)
            self.latest = snapshot
        return time.thread_time() - began

    def model_points(self, model: str, after: float) -> tuple[list[float], dict[str, list[float | None]]]:
        """Moments and figures of a model."""
        with self._lock:
            return self.models.moments(after), self.models.series(model, after)

    def last_entropy(self, model: str) -> float | None:
        """Mean entropy of a model's latest answers, nats; None before the first."""
        with self._lock:
            return self._entropies.get(model)

    def session_points(self, key: SessionKey, after: float) -> tuple[list[float], dict[str, list[float | None]]]:
        """Moments and figures of a session, nothing if none are kept."""
        with self._lock:
            series = self.sessions.series(key, after)
            return (self.sessions.moments(after) if series else []), series

    def outline(self, key: SessionKey) -> dict[str, list[float | None]]:
        """Entropy, accuracy and drift of a session in a few points; empty if none are kept."""
        with self._lock:
            series = self.sessions.outline(key, OUTLINE)
        if not series:
            return {}
        levels = zip(*(series[name] for name in DRIFTS), strict=True)
        drift = [max((level for level in at if level is not None), default=None) for at in levels]
        return {"entropy": series["entropy"], "accuracy": series["accuracy"], "drift": drift}

    def _look(self) -> list[Glance]:
        glances = self._sight.glances()
        self._glances = (time.monotonic(), glances)
        return glances

    def _sample_models(self, snapshot: ServiceSnapshot, moment: float) -> None:
        self.models.tick(moment)
        served = {figures.model: figures for figures in snapshot.models}
        for gone in set(self.models.keys) - served.keys():
            self.models.release(gone)
        for name, figures in served.items():
            if name in self.models or self.models.room:
                self.models.claim(name)
                point = _model_point(figures, self._last.get(name, figures))
                self.models.write(name, point)
                if (entropy := point["entropy"]) is not None:
                    self._entropies[name] = entropy
        self._last = served

    def _sample_sessions(self, glances: Iterable[Glance], moment: float) -> None:
        self.sessions.tick(moment)
        now = {(seen.tenant, seen.model, seen.session_id): seen for seen in glances}
        horizon = time.monotonic() - LOOKED_AT_SECONDS
        self._viewed = {key: when for key, when in self._viewed.items() if when > horizon and key in now}
        for key in self.sessions.keys:
            if key not in now:
                self.sessions.release(key)
        self._choose(now)
        for key in self.sessions.keys:
            told = self._sight.signals(*key)
            if told is not None:
                self.sessions.write(key, _session_point(now[key], self._seen.get(key, now[key]), *told))
        self._seen = {key: now[key] for key in self.sessions.keys}

    def _choose(self, now: dict[SessionKey, Glance]) -> None:
        """Give places to sessions being looked at, then to those that drift most."""
        for key in self._viewed:
            if key not in self.sessions and self._make_room(now, float("inf")):
                self.sessions.claim(key)
        changes = 0
        for seen in ranked(now.values(), Sort.DRIFT):
            key = (seen.tenant, seen.model, seen.session_id)
            if key in self.sessions:
                continue
            if self.sessions.room <= 0:
                changes += 1
                if changes > CHANGES or not self._make_room(now, seen.drift):
                    return
            self.sessions.claim(key)

    def _make_room(self, now: dict[SessionKey, Glance], drift: float) -> bool:
        """Whether there is a place, if need be that of the session nobody looks at that drifts least."""
        if self.sessions.room > 0:
            return True
        others = [key for key in self.sessions.keys if key not in self._viewed]
        if not others:
            return False
        calmest = min(others, key=lambda key: now[key].drift)
        if drift <= MARGIN * now[calmest].drift:
            return False
        self.sessions.release(calmest)
        return True


def _model_point(now: ModelSnapshot, before: ModelSnapshot) -> dict[str, float | None]:
    answers = sum(now.entropy.counts) - sum(before.entropy.counts)
    labels = now.labelled - before.labelled
    return {
        "sessions": sum(now.sessions.values()),
        "requests": sum(now.requests.values()) - sum(before.requests.values()),
        "entropy": (now.entropy.total - before.entropy.total) / answers if answers else None,
        "accuracy": now.estimated_accuracy if now.samples else None,
        "labelled_accuracy": (now.labelled_correct - before.labelled_correct) / labels if labels else None,
        "drift": max(now.drift_max.values(), default=0.0),
        "updates": now.steps.get("applied", 0) - before.steps.get("applied", 0),
        "rollbacks": sum(now.rollbacks.values()) - sum(before.rollbacks.values()),
        "restorations": sum(now.restorations.values()) - sum(before.restorations.values()),
        "skipped": sum(now.skipped.values()) - sum(before.skipped.values()),
        "adaptation_ms": 1e3 * (now.adaptation_seconds - before.adaptation_seconds),
        "denied_ms": now.budget_denied_ms - before.budget_denied_ms,
    }


def _session_point(now: Glance, before: Glance, distance: float, drift: tuple[float, ...]) -> dict[str, float | None]:
    return {
        "entropy": now.entropy,
        "accuracy": now.accuracy,
        "labelled_accuracy": now.labelled_accuracy,
        "distance": distance,
        **dict(zip(DRIFTS, drift, strict=True)),
        "updates": now.updates - before.updates,
        "rollbacks": now.rollbacks - before.rollbacks,
        "restorations": now.restorations - before.restorations,
    }
