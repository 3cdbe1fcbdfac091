"""What crosses the line between the edges (gRPC, HTTP, CLI) and the service: plain data, no protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import Lora
from acclimate.runtime.exported import ExportedSession as ExportedSession
from acclimate.runtime.exported import NamedTensor as NamedTensor
from acclimate.runtime.exported import named_tensors as named_tensors
from acclimate.runtime.scheduler.admission import AdmissionSnapshot
from acclimate.runtime.store.base import StoreSnapshot

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One inference request. `parameters` are the Open Inference request parameters, sequence ids among them.

    `deadline` is on the service clock in seconds, or None.
    """

    model: str
    version: str
    id: str
    inputs: Mapping[str, NDArray[Any]]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Scalar]
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class InferReply:
    """The answer; `id` echoes the request's or is one that was made for it, so that feedback can name it."""

    model: str
    version: str
    id: str
    outputs: Mapping[str, NDArray[Any]]
    parameters: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Budget:
    """A token bucket of adaptation time: refill in milliseconds per second of wall time, and its size."""

    refill_ms_per_s: float
    capacity_ms: float


@dataclass(frozen=True, slots=True)
class Seed:
    """What a session begins with in place of the source.

    Attributes:
        tensors: values by the names of the model's layouts; the source's where one is missing.
        lora: rank and alpha that the low-rank tensors among them were made for, where known.
    """

    tensors: Mapping[str, Float]
    lora: tuple[Lora, ...] = ()


@dataclass(frozen=True, slots=True)
class CreateSession:
    """What a client may choose about a new session; None means the configured default, and the source as its seed.

    `ttl_seconds` is how long it may be idle before it is closed; 0: for ever.
    """

    model: str
    session_id: str | None = None
    recipe: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    budget: Budget | None = None
    seed: Seed | None = None
    ttl_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as its owner sees it. Counters count since creation; times are Unix seconds.

    `drift` is how far its stream and its parameters are from the source's by the latest step, signal by signal.
    `paused` sessions do not learn. `etag` changes with what a writer may overwrite, counters apart. A session that is
    not used for `ttl_seconds` is closed; None: never.
    """

    model: str
    session_id: str
    recipe: str
    recipe_parameters: Mapping[str, float]
    state: str
    version: int
    created_at: float
    last_used_at: float
    requests: int
    samples: int
    buffered: int
    updates: int
    rollbacks: int
    restorations: int
    skipped: Mapping[str, int]
    backward_samples: int
    adaptation_ms: float
    budget: Budget
    budget_available_ms: float
    mean_entropy: float
    mean_confidence: float
    estimated_accuracy: float
    estimated_accuracy_doc: float
    labelled: int
    labelled_correct: int
    theta_distance: float
    drift: Mapping[str, float]
    state_bytes: int
    paused: bool = False
    ttl_seconds: float | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One page of a listing; an empty token ends it."""

    sessions: tuple[SessionView, ...]
    next_page_token: str


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


@dataclass(frozen=True, slots=True)
class Feedback:
    """A true label for an answered request: row `row` of the reply `request_id`."""

    request_id: str
    label: int
    row: int = 0


@dataclass(frozen=True, slots=True)
class FeedbackResult:
    """How many labels matched a remembered answer, and how many of those answers were right."""

    accepted: int
    correct: int
    unknown_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts per bucket: `counts[i]` values at most `bounds[i]`, the last count those above every bound."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """What an operator may ask about one served model; counters count since the daemon started.

    Attributes:
        requests: finished requests by outcome code (`OK`, `INVALID_ARGUMENT`, ...).
        request_seconds: arrival to answer; queue_seconds: arrival to engine; predict_seconds: engine alone.
        steps: adaptation steps per session by outcome (`applied`, `skipped`, `rolled_back`).
        skipped, rollbacks, restorations: the same, by reason.
        drifts: changes of sessions' streams, by what changed.
        entropy, confidence: served predictions, in nats and as probability of the answered class.
        estimated_accuracy: label-free (average thresholded confidence) over recent served predictions;
            estimated_accuracy_doc: the same by difference of confidences.
        buffered, dropped: samples waiting to be learnt from, and those given up because buffers were full.
        fell_behind: times that the source's model answered a session until steps had caught up with its stream.
        theta_distance_max: largest relative distance of a live session's theta from the source.
        drift_max: highest level among live sessions of each signal that drift is told by.
        specialised: sessions answered by a graph of their own; specialisations, specialisations_evicted: such graphs
            made, and given up for those of other sessions.
        forked, expired: sessions opened as copies, and closed because nobody used them.
        snapshots, snapshot_bytes: held now, of all sessions, and their size.
        moves: sessions that met another bundle in the place of theirs, by what became of them.
    """

    model: str
    version: str
    sessions: Mapping[str, int]
    sessions_created: int
    sessions_deleted: int
    requests: Mapping[str, int]
    samples: int
    request_seconds: Histogram
    queue_seconds: Histogram
    predict_seconds: Histogram
    batch_size: Histogram
    steps: Mapping[str, int]
    skipped: Mapping[str, int]
    rollbacks: Mapping[str, int]
    restorations: Mapping[str, int]
    drifts: Mapping[str, int]
    adaptation_seconds: float
    forward_samples: int
    backward_samples: int
    forward_flops: float
    backward_flops: float
    budget_granted_ms: float
    budget_denied_ms: float
    entropy: Histogram
    confidence: Histogram
    estimated_accuracy: float
    estimated_accuracy_doc: float
    labelled: int
    labelled_correct: int
    buffered: int
    fell_behind: int
    dropped: int
    theta_distance_max: float
    drift_max: Mapping[str, float]
    state_bytes: int
    specialised: int
    specialisations: int
    specialisations_evicted: int
    forked: int
    expired: int
    snapshots: int
    snapshot_bytes: int
    moves: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ServiceSnapshot:
    """The daemon at one moment; `loads` and `unloads` of models by outcome, since it started."""

    ready: bool
    draining: bool
    started_at: float
    queue_depth: int
    watchers: int
    models: tuple[ModelSnapshot, ...]
    store: StoreSnapshot
    admission: AdmissionSnapshot = field(default_factory=AdmissionSnapshot)
    loads: Mapping[str, int] = field(default_factory=dict)
    unloads: Mapping[str, int] = field(default_factory=dict)
