"""What crosses the line between the edges and the life of a session: plain data, no protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from acclimate.runtime.types import Budget


@dataclass(frozen=True, slots=True)
class ForkSession:
    """A session to be opened as a copy of `session_id`, or of its snapshot `snapshot_id` if that is not empty.

    What is None is the source's own, the id apart, which the daemon makes. `etag`, if not empty, is that of the source.
    """

    model: str
    session_id: str
    new_id: str | None = None
    snapshot_id: str = ""
    budget: Budget | None = None
    ttl_seconds: float | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True)
class UpdateSession:
    """Fields of a session to change: those in `paths`; a value that is None stands for the configured default."""

    model: str
    session_id: str
    paths: tuple[str, ...]
    budget: Budget | None = None
    ttl_seconds: float | None = None
    etag: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """A snapshot: when it was taken (Unix seconds), of which version, in which state, how far from the source."""

    model: str
    session_id: str
    snapshot_id: str
    created_at: float
    version: int
    state: str
    theta_distance: float
    nbytes: int


@dataclass(frozen=True, slots=True)
class SnapshotPage:
    """One page of a listing; an empty token ends it."""

    snapshots: tuple[SnapshotView, ...]
    next_page_token: str
