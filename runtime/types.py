"""What crosses the line between the edges (gRPC, HTTP, CLI) and the service: plain data, no protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import Lora
from acclimate.runtime.event_types import Event as Event
from acclimate.runtime.event_types import EventKind as EventKind
from acclimate.runtime.exported import ExportedSession as ExportedSession
from acclimate.runtime.exported import NamedTensor as NamedTensor
from acclimate.runtime.exported import named_tensors as named_tensors
from acclimate.runtime.figures import Histogram as Histogram
from acclimate.runtime.figures import ModelSnapshot as ModelSnapshot
from acclimate.runtime.figures import ServiceSnapshot as ServiceSnapshot

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
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as its owner sees it. Counters count since creation; times are Unix seconds.

    `drift` is how far its stream and its parameters are from the source's by the latest step, signal by signal.
    `paused` sessions do not learn. `etag` changes with what a writer may overwrite, counters apart. A session that is
    not used for `ttl_seconds` is closed; None: never. `tenant` is whose it is; empty where there are no tenants.
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
    labels: Mapping[str, str] = field(default_factory=dict)
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """Which sessions to list: of one model or of all (None), as a filter wants them, a page at a time.

    `every_tenant`: not the caller's alone; for administrators.
    """

    model: str | None = None
    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    every_tenant: bool = False


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One page of a listing; an empty token ends it."""

    sessions: tuple[SessionView, ...]
    next_page_token: str


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
