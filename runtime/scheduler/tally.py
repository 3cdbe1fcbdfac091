"""Counters and histograms of one served model, kept as plain numbers and pulled by the metrics collector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from acclimate.adapters.accuracy import UNLABELLED, Prequential, Scores
from acclimate.runtime.histograms import SECONDS, Buckets
from acclimate.runtime.scheduler.tickets import Answer

ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
NATS = (0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
SHARE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)


@dataclass(slots=True)
class Tally:
    """What happened to one model since the daemon started."""

    requests: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    request_seconds: Buckets = field(default_factory=lambda: Buckets(SECONDS))
    queue_seconds: Buckets = field(default_factory=lambda: Buckets(SECONDS))
    predict_seconds: Buckets = field(default_factory=lambda: Buckets(SECONDS))
    batch_size: Buckets = field(default_factory=lambda: Buckets(ROWS))
    entropy: Buckets = field(default_factory=lambda: Buckets(NATS))
    confidence: Buckets = field(default_factory=lambda: Buckets(SHARE))
    steps: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    rollbacks: Counter[str] = field(default_factory=Counter)
    fell_behind: int = 0
    restorations: Counter[str] = field(default_factory=Counter)
    drifts: Counter[str] = field(default_factory=Counter)
    adaptation_seconds: float = 0.0
    forward_samples: int = 0
    backward_samples: int = 0
    budget_granted_ms: float = 0.0
    budget_denied_ms: float = 0.0
    labelled: int = 0
    labelled_correct: int = 0
    prequential: Prequential = UNLABELLED
    dropped: int = 0
    forked: int = 0
    expired: int = 0
    moves: Counter[str] = field(default_factory=Counter)

    def answered(self, answers: Sequence[Answer], scores: Scores) -> None:
        """Count answers of one batch, whose samples score this."""
        first, count = answers[0], len(answers)
        self.samples += len(scores.label)
        self.queue_seconds.extend([answer.queued for answer in answers])
        self.predict_seconds.add(first.computed, count)
        self.batch_size.add(first.batch_rows, count)
        self.entropy.extend(scores.entropy.tolist())
        self.confidence.extend(scores.confidence.tolist())
