"""What a store keeps of a session, and what it is asked: the seam behind which a remote store can follow.

Calls block and belong on the store's own thread, never on the event loop. A store holds records under tenant, model
and session id, each owned by one daemon at a time: `owner` names it and `epoch` grows with every change of owner, so
that a write under an old epoch changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from acclimate.adapters.accuracy import Telemetry
from acclimate.adapters.manifest import Manifest
from acclimate.runtime.histograms import SECONDS, Buckets, Histogram

# What a snapshot takes beside its arrays: names, counters and figures.
HEADER_BYTES = 1024
# Requests with an id whose replies are kept.
REMEMBERED = 4096
# Attribute of a snapshot's record that tells it from others that had its id before it.
STAMP = "stamp"
Key = tuple[str, str, str]
"""Tenant, model and session id; the tenant is empty where there are none."""


@dataclass(frozen=True)
class SessionRecord:
    """One session at one moment: all of it but the samples that wait and the answers it remembers.

    Attributes:
        bundle: digest of the model that the fields belong to, `Manifest.digest`.
        parameters: of the recipe, effective.
        state, version, distance, drift, telemetry, account: as on the session.
        created_at, last_used_at, recorded_at: Unix seconds.
        budget_clock, budget_at: which clock the budget's bucket runs on, and its seconds at `recorded_at`.
        ttl_seconds: idle time after which the session is deleted for good, or None.
        labels: its owner's words for it.
        attributes: anything else that is JSON; readers leave alone what they do not know.
        tenant: whose it is; empty where there are no tenants.
        fields: the session's row of its bank, field name to array without the session axis.
        snapshots: records of the session at earlier moments, by the ids that its owner gave them.
    """

    model: str
    session_id: str
    bundle: str
    recipe: str
    parameters: Mapping[str, float]
    state: str
    version: int
    created_at: float
    last_used_at: float
    recorded_at: float
    budget_clock: str
    budget_at: float
    distance: float
    drift: tuple[float, ...]
    telemetry: Telemetry
    account: Mapping[str, Any]
    from_sequence: bool = False
    behind: bool = False
    ttl_seconds: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    snapshots: Mapping[str, SessionRecord] = field(default_factory=dict, repr=False)
    tenant: str = ""

    @property
    def key(self) -> Key:
        """Tenant, model and id."""
        return self.tenant, self.model, self.session_id

    @property
    def state_bytes(self) -> int:
        """What the session's tenant is charged for: its arrays and its snapshots."""
        own = sum(value.nbytes for value in self.fields.values())
        return own + sum(HEADER_BYTES + held.state_bytes for held in self.snapshots.values())


@dataclass(frozen=True, slots=True)
class Write:
    """A record to be written. `epoch` is the one it is owned under, 0 for a session that is new to the store.

    `expires_at` is when it is deleted for good unless written again, Unix seconds, or None.
    """

    record: SessionRecord
    epoch: int
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request that carried an id was answered with, so that it is not done again if it is sent again.

    Attributes:
        tenant, kind, resource, request_id: whose it is, the name of its message, what it acts on, and its id.
        request: a digest, by which it is recognised; reply: the message's bytes.
        session: what it was done to. A reply is written after the session, or together with it.
    """

    tenant: str
    kind: str
    resource: str
    request_id: str
    request: bytes
    reply: bytes
    session: Key


@dataclass(frozen=True)
class Batch:
    """What one transaction does, in this order: delete and write what is owned under these epochs, then let go of it.

    `bundles` describe models by their digest, so that a store can be read without them, see `describe`; of `replies`
    the latest `REMEMBERED` are kept.
    """

    deleted: Mapping[Key, int] = field(default_factory=dict)
    writes: Sequence[Write] = ()
    released: Mapping[Key, int] = field(default_factory=dict)
    bundles: Mapping[str, str] = field(default_factory=dict)
    replies: Sequence[Reply] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction came to: bytes of its records, and the sessions that somebody else owns by now."""

    bytes: int
    fenced: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant has in a store: how many sessions, and the bytes of their state, as `SessionRecord.state_bytes`."""

    sessions: int = 0
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as a listing shows it: None where it does not hold, `damage` saying why."""

    key: Key
    owner: str
    epoch: int
    bytes: int
    record: SessionRecord | None
    damage: str = ""


Accept = Callable[[SessionRecord], Any]


class Store(Protocol):
    """Records of sessions, each owned by one daemon at a time.

    Every call may raise `StoreError`, and has changed nothing then. `now` is Unix seconds; a record whose `expires_at`
    has passed is as good as deleted.
    """

    @property
    def owner(self) -> str:
        """Who this daemon is to the others."""

    def write(self, batch: Batch) -> Written:
        """Do all of a batch, durably, but for sessions that are not owned under the epoch given."""

    def claim(self, key: Key, now: float, accept: Accept, *, take_over: bool = False) -> tuple[Any, int] | None:
        """Own a session from now on: what `accept` made of its record, and the epoch; None if there is no such session.

        A dead owner's session is taken over, a living one's only with `take_over`. Whatever `accept` raises is
        passed on, and the session is not claimed.

        Raises:
            Damaged: the record does not hold. OwnedElsewhere: another daemon has the session.
        """

    def holds(self, key: Key) -> bool:
        """Whether there is a record under this key, expired or not; as `page` and `count`, safe beside other calls."""

    def remove(self, key: Key, *, take_over: bool = False) -> int | None:
        """Delete a session that nobody has open, whatever its record is; its `state_bytes`, None if there was none.

        Raises:
            OwnedElsewhere: another daemon has the session.
        """

    def bundle(self, digest: str) -> str | None:
        """What was said of a bundle, or None; may be asked from within `accept`."""

    def page(self, tenant: str | None, model: str | None, after: Key | None, limit: int, now: float) -> list[Stored]:
        """Records by their keys, those after a place, at most `limit`; of one tenant and one model, or of all."""

    def expire(self, now: float, limit: int) -> Mapping[Key, int]:
        """Delete records that have expired and that no living daemon owns; returns which, and their `state_bytes`."""

    def count(self) -> int:
        """How many records there are."""

    def replies(self) -> Sequence[Reply]:
        """Those that are kept, oldest first."""

    def usage(self) -> Mapping[str, Usage]:
        """What each tenant has, by name."""

    def size(self) -> int:
        """Bytes on disk; safe on any thread."""

    def close(self) -> None:
        """Let go of everything that is owned, and end; calling it twice is harmless."""


NOTHING_WRITTEN = Buckets(SECONDS).frozen()


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """The store at one moment; counters count since the daemon started.

    Attributes:
        sessions: records in it, as of the latest look.
        bytes: on disk.
        transactions, failures: writes that succeeded, and that did not.
        written, written_bytes: sessions written, and their records' bytes.
        write_times: of each transaction, seconds.
        pending_commits, oldest_seconds: commits that a crash would lose, and for how long the oldest waits.
        failing: whether the latest write failed.
        evictions, returns, fenced, damaged: sessions that gave up their place, came back, were taken over by another
            daemon, and records that did not hold when they were asked for.
    """

    sessions: int = 0
    bytes: int = 0
    transactions: int = 0
    failures: int = 0
    written: int = 0
    written_bytes: int = 0
    write_times: Histogram = NOTHING_WRITTEN
    pending_commits: int = 0
    oldest_seconds: float = 0.0
    failing: bool = False
    evictions: int = 0
    returns: int = 0
    fenced: int = 0
    damaged: int = 0


class StoreError(Exception):
    """The store could not do what it was asked, and may be able to later: a full disk, an I/O error."""


class Damaged(Exception):
    """A record does not hold: its checksum is wrong, or it is no record."""


class OwnedElsewhere(Exception):
    """Another daemon, which is alive, has the session."""

    def __init__(self, owner: str) -> None:
        super().__init__(f"owned by {owner}")
        self.owner = owner


def describe(manifest: Manifest) -> str:
    """A model, for `Batch.bundles`: how a session's tensors are laid out, and whether another model takes them over."""
    return json.dumps(manifest.to_json())
