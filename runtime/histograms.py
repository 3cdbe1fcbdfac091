"""Histograms, being filled and as they stand, with an exemplar of each bucket."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

# An eighth of a millisecond to half a minute, doubling: covers a tabular model and a language model.
SECONDS = tuple(0.000125 * 2**k for k in range(19))


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One of the values that a bucket counted: what it belongs to, and when it was, in Unix seconds."""

    labels: Mapping[str, str]
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts per bucket: `counts[i]` values at most `bounds[i]`, the last count those above every bound.

    `exemplars[i]` is the latest value of bucket i that had labels, or None; empty where none ever had.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    exemplars: tuple[Exemplar | None, ...] = ()


@dataclass(slots=True)
class Buckets:
    """A histogram being filled."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    exemplars: list[Exemplar | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def extend(self, values: Collection[float]) -> None:
        """Count each value."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def show(self, exemplar: Exemplar) -> None:
        """Let a value that was counted stand for its bucket."""
        if not self.exemplars:
            self.exemplars = [None] * len(self.counts)
        self.exemplars[bisect_left(self.bounds, exemplar.value)] = exemplar

    def frozen(self) -> Histogram:
        """As it stands now."""
        return Histogram(self.bounds, tuple(self.counts), self.total, tuple(self.exemplars))
