"""How many sessions there are, what became of others, and the memory they take."""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue.rows import ModelMetric
from acclimate.runtime.repository.moving import Move
from acclimate.runtime.sessions.states import SessionState

ROWS = (
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
)  # fmt: skip
