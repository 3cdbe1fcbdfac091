"""What `acclimate top` shows, as data: read over gRPC, and remembered from one look to the next."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Self

from acclimate.runtime.client import Client, ClientError
from acclimate.runtime.client.watching import Watch
from acclimate.runtime.event_types import NEWS
from acclimate.runtime.ranking import Glance, Sort, glance, mean, ranked
from acclimate.runtime.types import Event

PAGE_SIZE = 1000
EVENTS = 50
TREND = 24
# Refusals that do not go away by waiting.
FINAL = ("UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED")
AGAIN_SECONDS = 1.0
KEYS = {
    "d": Sort.DRIFT,
    "a": Sort.ACCURACY,
    "e": Sort.ENTROPY,
    "r": Sort.ROLLBACKS,
    "u": Sort.UPDATES,
    "l": Sort.RECENT,
}

Named = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model's sessions together: means of what is known, the highest drift, sums of counters."""

    model: str
    sessions: int
    paused: int
    entropy: float | None
    accuracy: float | None
    drift: float
    requests: int
    updates: int
    rollbacks: int
    restorations: int
    updates_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One look.

    Attributes:
        target, version, started_at: the daemon's.
        at: Unix seconds of the look.
        error: why the daemon cannot be reached; empty if it can, and else what follows is from the last look.
        sort: order of the sessions.
        total: sessions there are, of which `sessions` are the first.
        models: by name.
        events: newest first; none of a single look.
        trends: drift of sessions at the latest looks, by model and id.
    """

    target: str
    version: str
    started_at: float
    at: float
    error: str
    sort: str
    total: int
    models: tuple[ModelRow, ...]
    sessions: tuple[Glance, ...]
    events: tuple[Event, ...] = ()
    trends: tuple[tuple[float, ...], ...] = ()


def look(client: Client, target: str, model: str | None, sort: Sort, limit: int = 0) -> Frame:
    """Read everything once; `limit` 0 keeps every session.

    Raises:
        ClientError: the daemon cannot be reached, or refuses.
    """
    info = client.server_info()
    glances = [glance(view) for view in client.list_sessions(model, page_size=PAGE_SIZE)]
    ordered = ranked(glances, sort)
    served = [name for name in info.models if model in (None, name)]
    return Frame(
        target=target,
        version=info.version,
        started_at=info.started_at,
        at=time.time(),
        error="",
        sort=sort.value,
        total=len(ordered),
        models=rows(served, glances),
        sessions=tuple(ordered[:limit] if limit else ordered),
    )


def document(frame: Frame) -> dict[str, Any]:
    """A single look for scripts: without what only several looks, or a daemon's inside, can tell."""
    whole = asdict(frame)
    for name in ("error", "events", "trends"):
        del whole[name]
    for row in whole["models"]:
        del row["updates_per_s"]
    for row in whole["sessions"]:
        del row["tenant"]
    return whole


def rows(models: Iterable[str], glances: Sequence[Glance]) -> tuple[ModelRow, ...]:
    """A row for each model."""
    return tuple(_row(model, [seen for seen in glances if seen.model == model]) for model in models)


def _row(model: str, sessions: Sequence[Glance]) -> ModelRow:
    return ModelRow(
        model=model,
        sessions=len(sessions),
        paused=sum(seen.paused for seen in sessions),
        entropy=mean([seen.entropy for seen in sessions]),
        accuracy=mean([seen.accuracy for seen in sessions]),
        drift=max((seen.drift for seen in sessions), default=0.0),
        requests=sum(seen.requests for seen in sessions),
        updates=sum(seen.updates for seen in sessions),
        rollbacks=sum(seen.rollbacks for seen in sessions),
        restorations=sum(seen.restorations for seen in sessions),
    )


class Screen:
    """What was seen at the latest looks; a daemon that goes away leaves the last one standing."""

    def __init__(self, client: Client, target: str, model: str | None, sort: Sort, news: News) -> None:
        self._client = client
        self._target = target
        self._model = model
        self._sort = sort
        self._news = news
        self._trends: dict[Named, deque[float]] = {}
        self._last = Frame(target, "", 0.0, time.time(), "connecting", sort.value, 0, (), ())

    def look(self) -> None:
        """Look again.

        Raises:
            ClientError: a refusal that will not go away.
        """
        try:
            frame = look(self._client, self._target, self._model, self._sort)
        except ClientError as error:
            if error.code in FINAL:
                raise
            self._last = replace(self._last, error=error.message or error.code)
            return
        self._last = replace(frame, models=_rated(frame, self._last))
        seen = {(one.model, one.session_id): one.drift for one in frame.sessions}
        self._trends = {key: self._trends.get(key, deque(maxlen=TREND)) for key in seen}
        for key, trend in self._trends.items():
            trend.append(seen[key])

    def order(self, key: str) -> bool:
        """Order by what a key stands for; whether it stands for anything."""
        if key in KEYS:
            self._sort = KEYS[key]
        return key in KEYS

    def frame(self) -> Frame:
        """What to show now."""
        sessions = tuple(ranked(self._last.sessions, self._sort))
        trends = tuple(tuple(self._trends.get((seen.model, seen.session_id), ())) for seen in sessions)
        return replace(self._last, sort=self._sort.value, sessions=sessions, trends=trends, events=self._news.latest())


def _rated(now: Frame, before: Frame) -> tuple[ModelRow, ...]:
    """The models' rows with updates a second since the look before; None where that was of another daemon."""
    seconds, known = now.at - before.at, {row.model: row for row in before.models}
    if now.started_at != before.started_at or seconds <= 0:
        return now.models
    return tuple(
        replace(row, updates_per_s=max(0, row.updates - known[row.model].updates) / seconds)
        if row.model in known
        else row
        for row in now.models
    )


class News:
    """The latest events but steps, read by a thread of its own for as long as a `with` block lasts."""

    def __init__(self, client: Client, model: str | None) -> None:
        self._client = client
        self._model = model
        self._events: deque[Event] = deque(maxlen=EVENTS)
        self._closed = threading.Event()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._read, name="news", daemon=True)

    def latest(self) -> tuple[Event, ...]:
        """Newest first."""
        return tuple(reversed(tuple(self._events)))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._watch is not None:
            self._watch.close()

    def _read(self) -> None:
        while not self._closed.is_set():
            try:
                with self._client.watch(self._model, kinds=NEWS) as watch:
                    self._watch = watch
                    for event in watch:
                        self._events.append(event)
            except ClientError:
                # The list says what is wrong; here it is only a matter of trying again.
                pass
            self._closed.wait(AGAIN_SECONDS)
