"""Counters and histograms of one served model, kept as plain numbers and pulled by the metrics collector."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from acclimate.runtime.types import Histogram

# Half a millisecond to half a minute, doubling: covers a tabular model and a language model.
SECONDS = tuple(0.0005 * 2**k for k in range(17))
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
NATS = (0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
SHARE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)


@dataclass(slots=True)
class Buckets:
    """A histogram being filled."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def extend(self, values: Iterable[float]) -> None:
        """Count each value."""
        for value in values:
            self.add(value)

    def frozen(self) -> Histogram:
        """As it stands now."""
        return Histogram(self.bounds, tuple(self.counts), self.total)


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
    dropped: int = 0
    forked: int = 0
    expired: int = 0
    moves: Counter[str] = field(default_factory=Counter)
