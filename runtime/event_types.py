"""What can happen to a session, and an account of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class EventKind(StrEnum):
    """What can happen to a session."""

    CREATED = "created"
    RESET = "reset"
    DELETED = "deleted"
    APPLIED = "applied"
    SKIPPED = "skipped"
    ROLLED_BACK = "rolled_back"
    RESTORED = "restored"
    FEEDBACK = "feedback"
    SEEDED = "seeded"
    DRIFTED = "drifted"
    PAUSED = "paused"
    RESUMED = "resumed"
    FORKED = "forked"
    UPDATED = "updated"
    SNAPSHOT_TAKEN = "snapshot_taken"
    SNAPSHOT_DELETED = "snapshot_deleted"
    EXPIRED = "expired"
    EVICTED = "evicted"
    RETURNED = "returned"
    FENCED = "fenced"
    MOVED = "moved"


# Steps are figures, not news: they would push everything else out.
STEPS = frozenset({EventKind.APPLIED, EventKind.SKIPPED})
NEWS = tuple(kind for kind in EventKind if kind not in STEPS)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a session; `reason` is a stable word, `cost_ms` what it cost.

    `restored_to` is the version that a restored session is at again: of a checkpoint or snapshot, or 0, the source's.
    `snapshot` is the id of the snapshot taken, deleted, brought back or forked from; `source` that of the session
    forked from. `tenant` is whose session it is, for the hub to know who may hear of it. `token` names the event to a
    watch that wants to go on after it; `missed` says that a watch lost others just before it.
    """

    kind: EventKind
    model: str
    session_id: str
    at: float
    version_before: int
    version_after: int
    reason: str = ""
    cost_ms: float = 0.0
    samples: int = 0
    restored_to: int = 0
    snapshot: str = ""
    source: str = ""
    tenant: str = ""
    token: str = field(default="", compare=False)
    missed: bool = field(default=False, compare=False)
