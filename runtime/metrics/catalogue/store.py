"""The store of sessions."""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue.rows import ProcessMetric

ROWS = (
    ProcessMetric(
        "store_sessions", "gauge", "Sessions in the store, in memory or not; 0 without a store.",
        lambda s: s.service.store.sessions,
    ),
    ProcessMetric("store_bytes", "gauge", "Size of the store on disk.", lambda s: s.service.store.bytes),
    ProcessMetric(
        "store_failing", "gauge", "1 if the latest write failed, so that nothing is learnt, else 0.",
        lambda s: s.service.store.failing,
    ),
    ProcessMetric(
        "store_pending_commits", "gauge", "Commits that are not written yet: what a crash would lose.",
        lambda s: s.service.store.pending_commits,
    ),
    ProcessMetric(
        "store_oldest_pending_seconds", "gauge", "For how long the oldest of them waits.",
        lambda s: s.service.store.oldest_seconds,
    ),
    ProcessMetric(
        "store_transactions_total", "counter", "Transactions written.", lambda s: s.service.store.transactions
    ),
    ProcessMetric(
        "store_write_failures_total", "counter", "Transactions that could not be written.",
        lambda s: s.service.store.failures,
    ),
    ProcessMetric("store_writes_total", "counter", "Sessions written.", lambda s: s.service.store.written),
    ProcessMetric(
        "store_written_bytes_total", "counter", "Bytes of their records.", lambda s: s.service.store.written_bytes
    ),
    ProcessMetric(
        "store_write_seconds_total", "counter", "Time that writing took, waiting for the disk included.",
        lambda s: s.service.store.write_times.total,
    ),
    ProcessMetric(
        "store_transaction_duration_seconds", "histogram", "Of each transaction, waiting for the disk included.",
        lambda s: s.service.store.write_times,
    ),
    ProcessMetric(
        "store_evictions_total", "counter", "Sessions that left memory for the store.",
        lambda s: s.service.store.evictions,
    ),
    ProcessMetric(
        "store_returns_total", "counter", "Sessions that returned from it.", lambda s: s.service.store.returns
    ),
    ProcessMetric(
        "store_fenced_total", "counter", "Sessions that another daemon had taken over.",
        lambda s: s.service.store.fenced,
    ),
    ProcessMetric(
        "store_damaged_total", "counter", "Requests for a session whose record did not hold.",
        lambda s: s.service.store.damaged,
    ),
)  # fmt: skip
