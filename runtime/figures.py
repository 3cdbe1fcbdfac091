"""What an operator may ask about the daemon and its models: figures at one moment, read by metrics and pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from acclimate.runtime.histograms import Histogram as Histogram
from acclimate.runtime.scheduler.admission import AdmissionSnapshot
from acclimate.runtime.store.base import StoreSnapshot


@dataclass(frozen=True, slots=True)
class ComparisonFigures:
    """Samples that both an adapted session and the source's model answered, since the model was loaded.

    Attributes:
        samples: all of them; disagreed: those whose answers differ; labelled: those whose true class is known.
        confident, correct: answers above the confidence threshold, and right ones of the labelled, of `adapted` and
            `frozen`.
    """

    samples: int
    disagreed: int
    labelled: int
    confident: Mapping[str, int]
    correct: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ListedSession:
    """One of the few sessions that are named to an operator, because they are the worst of their model.

    Attributes:
        drift: level of each signal at its latest step; 0 is the source.
        estimated_accuracy: without labels, of recent answers; None before the first.
        rollbacks: since it was opened.
        theta_distance: relative, of its parameters from the source's.
    """

    tenant: str
    session_id: str
    drift: Mapping[str, float]
    estimated_accuracy: float | None
    rollbacks: int
    theta_distance: float


@dataclass(frozen=True, slots=True)
class ModelCensus:
    """What `ModelSnapshot` says of a model's live sessions, under the same names."""

    sessions: Mapping[str, int]
    buffered: int
    state_bytes: int
    snapshots: int
    snapshot_bytes: int
    theta_distance_max: float
    drift_max: Mapping[str, float]
    drift_mean: Mapping[str, float]
    listed: tuple[ListedSession, ...]


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
            estimated_accuracy_doc: the same by difference of confidences; observed: how many recent predictions they
            are worth, 0 before the first.
        prequential_accuracy: of recent answers whose true label was sent, None before the first; comparison: adapted
            sessions' answers beside those of the source's model.
        buffered, dropped: samples waiting to be learnt from, and those given up because buffers were full.
        fell_behind: times that the source's model answered a session until steps had caught up with its stream.
        theta_distance_max: largest relative distance of a live session's theta from the source.
        drift_max, drift_mean: highest and mean level among live sessions of each signal that drift is told by.
        listed: the sessions that drift most, are rolled back most, or seem to be answered worst.
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
    observed: float
    labelled: int
    labelled_correct: int
    prequential_accuracy: float | None
    comparison: ComparisonFigures
    buffered: int
    fell_behind: int
    dropped: int
    theta_distance_max: float
    drift_max: Mapping[str, float]
    drift_mean: Mapping[str, float]
    listed: tuple[ListedSession, ...]
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
class TenantSnapshot:
    """One configured tenant at one moment; counters count since the daemon started.

    Attributes:
        sessions, state_bytes: what it has, in memory and in the store.
        requests: asked for, refused ones among them; refused: by quota.
        adaptation_seconds: spent on its sessions.
    """

    name: str
    sessions: int
    state_bytes: int
    requests: int
    refused: Mapping[str, int]
    adaptation_seconds: float


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
    loads: Mapping[str, int] = field(default_factory=dict)
    unloads: Mapping[str, int] = field(default_factory=dict)
    tenants: tuple[TenantSnapshot, ...] = ()
    admission: AdmissionSnapshot = field(default_factory=AdmissionSnapshot)
