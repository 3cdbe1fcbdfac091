"""What the page's API says, as JSON: one frozen dataclass for each document. docs/web.md describes every field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from starlette.responses import JSONResponse

from acclimate.runtime.lifecycle_types import SnapshotView
from acclimate.runtime.ranking import Glance
from acclimate.runtime.types import Event, SessionView

Series = Mapping[str, list[float | None]]
NO_STORE = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Status:
    """`/api/status`: the daemon, and who is asking."""

    version: str
    ready: bool
    draining: bool
    started_at: float
    at: float
    queue_depth: int
    sessions: int
    stored_sessions: int
    sample_seconds: float
    budget_ms_per_s: float
    closed: bool
    role: str
    tenant: str
    may: list[str]
    models: list[str]


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model in `/api/models`; `whole` figures are of all tenants, others of the caller's sessions in memory."""

    model: str
    version: str
    whole: bool
    sessions: int
    requests: int
    entropy: float | None
    accuracy: float | None
    labelled_accuracy: float | None
    drift: float
    updates: int
    rollbacks: int
    restorations: int
    skipped: int | None
    adaptation_ms: float | None
    denied_ms: float | None


@dataclass(frozen=True, slots=True)
class ModelList:
    """`/api/models`."""

    at: float
    models: list[ModelFigures]


@dataclass(frozen=True, slots=True)
class Points:
    """A history: `series[name][i]` is what was seen at `at[i]`, Unix seconds; null where it was not known."""

    at: list[float]
    series: Series


@dataclass(frozen=True, slots=True)
class SessionList:
    """`/api/sessions`: one page of the sessions in memory; `total` match, on `pages` pages."""

    sessions: list[dict[str, Any]]
    total: int
    page: int
    pages: int


@dataclass(frozen=True, slots=True)
class SessionDetail:
    """One session: itself, its snapshots, and the latest events but steps."""

    session: dict[str, Any]
    snapshots: list[SnapshotView]
    events: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class EventList:
    """`/api/recent`: the latest events but steps, newest first."""

    events: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Problem:
    """Every refusal: the gRPC status, a stable reason, a sentence, and its variables."""

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str]


def row(seen: Glance, outline: Series) -> dict[str, Any]:
    """A session in a list: the fields of `ranking.Glance` without the tenant, and its history in a few points."""
    figures = {entry.name: getattr(seen, entry.name) for entry in fields(seen) if entry.name != "tenant"}
    return figures | {"outline": outline}


def session(view: SessionView) -> dict[str, Any]:
    """A session by itself: the fields of `types.SessionView`; figures of answers are null before the first."""
    document = asdict(view)
    if not view.samples:
        for name in ("mean_entropy", "mean_confidence", "estimated_accuracy", "estimated_accuracy_doc"):
            document[name] = None
    return document


def event(happened: Event) -> dict[str, Any]:
    """Something that happened: the fields of `types.Event` without the tenant and what a watch needs."""
    hidden = ("tenant", "token", "missed")
    return {entry.name: getattr(happened, entry.name) for entry in fields(happened) if entry.name not in hidden}


def plain(value: Any) -> Any:
    """Numbers that JSON does not have become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def answer(document: Any) -> JSONResponse:
    """A document as a response that nobody keeps."""
    return JSONResponse(plain(asdict(document)), headers=NO_STORE)
