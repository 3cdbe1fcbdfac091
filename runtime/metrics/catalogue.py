"""Every metric that the daemon exports, in one table.

Conventions (prometheus.io naming and instrumentation pages): prefix `acclimate_`, base units, `_total` on
counters, ratios from 0 to 1. Labels are of bounded cardinality: never a session, a client or anything else a
client chooses. A row here, a value in `collector.py`, and `docs/metrics.md` is generated:
`python -m acclimate.runtime.metrics.catalogue > docs/metrics.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from acclimate.adapters.outcome import Outcome
from acclimate.adapters.signals import SIGNALS
from acclimate.adapters.watch import Drift
from acclimate.runtime.errors import Code
from acclimate.runtime.repository.control import LOAD_OUTCOMES, UNLOAD_OUTCOMES
from acclimate.runtime.repository.moving import Move
from acclimate.runtime.scheduler.admission import Refused
from acclimate.runtime.sessions.states import SessionState
from acclimate.runtime.types import Histogram, ModelSnapshot

PREFIX = "acclimate_"
CODES = ("OK", *(code.value for code in Code), "CANCELLED", "INTERNAL")
OUTCOMES = tuple(dict.fromkeys(outcome.kind for outcome in Outcome))

Kind = Literal["counter", "gauge", "histogram"]
Value = float | Histogram | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """A metric with the label `model`, and `label` besides if it has one.

    `read` takes it from a model's snapshot: a number, a histogram, or with a label numbers by its value.
    `values` are the label's values that are exported as 0 before anything happened.
    """

    name: str
    kind: Kind
    help: str
    read: Callable[[ModelSnapshot], Value]
    label: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessMetric:
    """A metric of the whole daemon; `collector.py` knows its value."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _reasons(kind: str) -> tuple[str, ...]:
    return tuple(outcome.reason for outcome in Outcome if outcome.kind == kind)


STORE = (
    ProcessMetric("store_sessions", "gauge", "Sessions in the store, in memory or not; 0 without a store."),
    ProcessMetric("store_bytes", "gauge", "Size of the store on disk."),
    ProcessMetric("store_failing", "gauge", "1 if the latest write failed, so that nothing is learnt, else 0."),
    ProcessMetric("store_pending_commits", "gauge", "Commits that are not written yet: what a crash would lose."),
    ProcessMetric("store_oldest_pending_seconds", "gauge", "For how long the oldest of them waits."),
    ProcessMetric("store_transactions_total", "counter", "Transactions written."),
    ProcessMetric("store_write_failures_total", "counter", "Transactions that could not be written."),
    ProcessMetric("store_writes_total", "counter", "Sessions written."),
    ProcessMetric("store_written_bytes_total", "counter", "Bytes of their records."),
    ProcessMetric("store_write_seconds_total", "counter", "Time that writing took, waiting for the disk included."),
    ProcessMetric("store_evictions_total", "counter", "Sessions that left memory for the store."),
    ProcessMetric("store_returns_total", "counter", "Sessions that returned from it."),
    ProcessMetric("store_fenced_total", "counter", "Sessions that another daemon had taken over."),
    ProcessMetric("store_damaged_total", "counter", "Requests for a session whose record did not hold."),
)

PROCESS = (
    ProcessMetric("build_info", "gauge", "Always 1; the label is the package's version.", ("version",)),
    ProcessMetric("ready", "gauge", "1 if new work is accepted, else 0."),
    ProcessMetric("draining", "gauge", "1 once the daemon finishes what it has and refuses more, else 0."),
    ProcessMetric("start_time_seconds", "gauge", "When the daemon started, Unix time."),
    ProcessMetric("queue_depth", "gauge", "Requests waiting for an engine."),
    ProcessMetric("requests_under_way", "gauge", "Inference requests that were taken and not yet answered."),
    ProcessMetric("expected_wait_seconds", "gauge", "How long one more would wait, expected."),
    ProcessMetric("overloaded", "gauge", "1 while more requests come than can be answered, else 0."),
    ProcessMetric("requests_refused_total", "counter", "Inference requests without room, by why.", ("reason",)),
    ProcessMetric("watchers", "gauge", "Open event watches."),
    ProcessMetric("resident_memory_bytes", "gauge", "Resident memory of the process."),
    ProcessMetric("cpu_seconds_total", "counter", "User and system time of the process."),
    *STORE,
    ProcessMetric(
        "auth_failures_total", "counter", "Callers turned away: credential missing, malformed or wrong, role "
        "forbidden, or another tenant named.", ("reason",),
    ),
    ProcessMetric(
        "quota_refusals_total", "counter", "Times that a tenant asked for more than its quota of something; of "
        "adaptation, steps not taken.", ("quota",),
    ),
    ProcessMetric("models", "gauge", "Served models."),
    ProcessMetric("model_info", "gauge", "Always 1 for each served model and its version.", ("model", "version")),
    ProcessMetric("model_loads_total", "counter", "Loads of models asked for while serving, by outcome.", ("outcome",)),
    ProcessMetric(
        "model_unloads_total", "counter", "Unloads of models asked for while serving, by outcome.", ("outcome",)
    ),
    ProcessMetric("inference_streams", "gauge", "Open inference streams."),
    ProcessMetric(
        "inference_stream_requests_total", "counter", "Requests of inference streams by status code.", ("code",)
    ),
    ProcessMetric("rpcs_total", "counter", "Finished rpcs by method and gRPC status code.", ("rpc", "code")),
)  # fmt: skip

MODEL = (
    ModelMetric(
        "requests_total", "counter", "Inference requests by status code.", lambda m: m.requests, "code", CODES
    ),
    ModelMetric("samples_total", "counter", "Samples answered.", lambda m: m.samples),
    ModelMetric(
        "request_duration_seconds", "histogram", "From arrival of a request to its answer.",
        lambda m: m.request_seconds,
    ),
    ModelMetric(
        "queue_duration_seconds", "histogram", "From arrival of a request to the engine.",
        lambda m: m.queue_seconds,
    ),
    ModelMetric(
        "predict_duration_seconds", "histogram", "In the engine, per batch.", lambda m: m.predict_seconds
    ),
    ModelMetric("batch_samples", "histogram", "Samples predicted together.", lambda m: m.batch_size),
    ModelMetric(
        "sessions", "gauge", "Open sessions, by what answers them and whether they learn.", lambda m: m.sessions,
        "state", tuple(state.value for state in SessionState if state is not SessionState.CLOSED),
    ),
    ModelMetric("sessions_created_total", "counter", "Sessions opened.", lambda m: m.sessions_created),
    ModelMetric("sessions_deleted_total", "counter", "Sessions closed.", lambda m: m.sessions_deleted),
    ModelMetric("sessions_forked_total", "counter", "Sessions opened as copies of others.", lambda m: m.forked),
    ModelMetric(
        "sessions_expired_total", "counter", "Sessions closed because nobody used them for their time-to-live.",
        lambda m: m.expired,
    ),
    ModelMetric(
        "session_moves_total", "counter", "Sessions whose model was replaced or unloaded, by what became of them.",
        lambda m: m.moves, "outcome", tuple(move.value for move in Move),
    ),
    ModelMetric("session_state_bytes", "gauge", "State of all open sessions.", lambda m: m.state_bytes),
    ModelMetric("session_snapshots", "gauge", "Snapshots held for all open sessions.", lambda m: m.snapshots),
    ModelMetric(
        "session_snapshot_bytes", "gauge", "Size of these snapshots, part of the state.", lambda m: m.snapshot_bytes
    ),
    ModelMetric(
        "specialised_sessions", "gauge", "Sessions answered by a graph of their own.", lambda m: m.specialised
    ),
    ModelMetric(
        "specialisations_total", "counter", "Graphs made for one session.", lambda m: m.specialisations
    ),
    ModelMetric(
        "specialisations_evicted_total", "counter", "Graphs of one session given up for another's.",
        lambda m: m.specialisations_evicted,
    ),
    ModelMetric(
        "adaptation_steps_total", "counter", "Adaptation steps, counted once per session, by outcome.",
        lambda m: m.steps, "outcome", OUTCOMES,
    ),
    ModelMetric(
        "adaptation_skipped_total", "counter", "Adaptation steps not taken, by reason.", lambda m: m.skipped,
        "reason", _reasons("skipped"),
    ),
    ModelMetric(
        "adaptation_rollbacks_total", "counter", "Adaptation steps undone by a guard, by guard.",
        lambda m: m.rollbacks, "reason", _reasons("rolled_back"),
    ),
    ModelMetric(
        "restorations_total", "counter", "Sessions taken back to a checkpoint, a snapshot or the source, by reason.",
        lambda m: m.restorations, "reason",
        ("strikes", "starved", "drift", "canary", "collapse", "periodic", "recovery", "snapshot"),
    ),
    ModelMetric(
        "drift_level_max_ratio", "gauge", "Highest level among open sessions of each signal that tells drift; 0 is the "
        "source.", lambda m: m.drift_max, "signal", SIGNALS,
    ),
    ModelMetric(
        "drifts_total", "counter", "Changes found in sessions' streams, by what changed.", lambda m: m.drifts,
        "reason", tuple(drift.reason for drift in Drift if drift.reason),
    ),
    ModelMetric(
        "adaptation_seconds_total", "counter", "Time spent on adaptation.", lambda m: m.adaptation_seconds
    ),
    ModelMetric(
        "adaptation_forward_samples_total", "counter", "Samples run forward in order to adapt.",
        lambda m: m.forward_samples,
    ),
    ModelMetric(
        "adaptation_backward_samples_total", "counter", "Samples that a gradient was computed for.",
        lambda m: m.backward_samples,
    ),
    ModelMetric(
        "forward_flops_total", "counter", "Floating-point operations of forward passes, estimated from the "
        "bundle's cost per sample.", lambda m: m.forward_flops,
    ),
    ModelMetric(
        "backward_flops_total", "counter", "Floating-point operations of gradient passes, estimated from the "
        "bundle's cost per sample.", lambda m: m.backward_flops,
    ),
    ModelMetric(
        "budget_granted_seconds_total", "counter", "Adaptation time that budgets paid for.",
        lambda m: m.budget_granted_ms / 1e3,
    ),
    ModelMetric(
        "budget_denied_seconds_total", "counter", "Adaptation time that budgets could not pay for, foreseen.",
        lambda m: m.budget_denied_ms / 1e3,
    ),
    ModelMetric("entropy_nats", "histogram", "Entropy of served predictions.", lambda m: m.entropy),
    ModelMetric(
        "confidence_ratio", "histogram", "Probability of the answered class.", lambda m: m.confidence
    ),
    ModelMetric(
        "estimated_accuracy_ratio", "gauge", "Accuracy of recent predictions estimated without labels "
        "(average thresholded confidence); a model that grew overconfident flatters itself here.",
        lambda m: m.estimated_accuracy,
    ),
    ModelMetric(
        "estimated_accuracy_doc_ratio", "gauge", "The same by difference of confidences: the source's accuracy less "
        "what mean confidence has lost since.", lambda m: m.estimated_accuracy_doc,
    ),
    ModelMetric(
        "labelled_total", "counter", "Answers that a true label was sent for.", lambda m: m.labelled
    ),
    ModelMetric(
        "labelled_correct_total", "counter", "Answers that their true label confirmed.",
        lambda m: m.labelled_correct,
    ),
    ModelMetric("buffered_samples", "gauge", "Samples waiting to be learnt from.", lambda m: m.buffered),
    ModelMetric(
        "dropped_samples_total", "counter", "Samples given up unlearnt because a session's buffer was full.",
        lambda m: m.dropped,
    ),
    ModelMetric(
        "fell_behind_total", "counter", "Times that steps could not keep up with a session's stream, so that the "
        "source's model answered it until they had.", lambda m: m.fell_behind,
    ),
    ModelMetric(
        "theta_distance_max_ratio", "gauge", "Largest distance of a session's parameters from the source's, "
        "relative to the source's norm.", lambda m: m.theta_distance_max,
    ),
)  # fmt: skip


PROCESS_VALUES = {
    "requests_refused_total": ("reason", tuple(why.value for why in Refused)),
    "model_loads_total": ("outcome", LOAD_OUTCOMES),
    "model_unloads_total": ("outcome", UNLOAD_OUTCOMES),
    "inference_stream_requests_total": ("code", CODES),
}
"""Label values of process metrics that are exported as 0 before anything happened."""


def markdown() -> str:
    """`docs/metrics.md`."""
    rows = [(m.name, m.kind, m.labels, m.help) for m in PROCESS]
    rows += [(m.name, m.kind, ("model", m.label) if m.label else ("model",), m.help) for m in MODEL]
    lines = [
        f"| `{PREFIX}{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text} |"
        for name, kind, labels, text in rows
    ]
    values = [
        f"- `{PREFIX}{name}`: `{label}` is one of {', '.join(f'`{v}`' for v in known)}."
        for name, (label, known) in PROCESS_VALUES.items()
    ]
    values += [
        f"- `{PREFIX}{metric.name}`: `{metric.label}` is one of {', '.join(f'`{v}`' for v in metric.values)}."
        for metric in MODEL
        if metric.values
    ]
    return _PAGE + "\n".join(lines) + _LABELS + "\n".join(values) + "\n"


_PAGE = """# Metrics

<!-- Generated: python -m acclimate.runtime.metrics.catalogue > docs/metrics.md -->

The HTTP port serves Prometheus metrics at `/metrics` (and `/healthz`, `/readyz`). Figures are read from the
daemon's own books when they are scraped. No metric carries a session: for one session's figures ask
`SessionService.GetSession`, for its events `WatchSessions`. `ops/prometheus/prometheus.yml` is a scrape
configuration to start from.

| metric | type | labels | meaning |
|---|---|---|---|
"""

_LABELS = """

Label values that are exported from the start, as 0:

"""

if __name__ == "__main__":
    sys.stdout.write(markdown())
