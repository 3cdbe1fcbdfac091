"""ADWIN: a window that grows while its mean holds and drops its old end when it does not, for all sessions at once.

Bifet and Gavaldà 2007, "Learning from time-changing data with adaptive windowing", ADWIN2: the window is kept as
buckets of 1, 2, 4, ... values, at most `buckets` of each size, so memory is logarithmic in its length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State

Double = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Adwin:
    """The detector; its fields are named after `name`, so that several can watch one session.

    Attributes:
        name: prefix of the fields.
        delta: how sure a cut must be: the chance of a false alarm at one point in time.
        clock: values between two searches for a cut.
        buckets: of each size, M in the paper.
        levels: sizes of buckets; at `buckets * (2 ** levels - 1)` values the oldest are forgotten.
        shortest: values that each side of a cut must have.
        grace: values before the first search.
    """

    name: str = "adwin"
    delta: float = 0.002
    clock: int = 32
    buckets: int = 5
    levels: int = 14
    shortest: int = 5
    grace: int = 10

    def template(self) -> State:
        """Sums and squared deviations `[levels, buckets + 1]` of the buckets, oldest first, and their number."""
        room = np.zeros((self.levels, self.buckets + 1), np.float64)
        return {
            f"{self.name}.sum": room,
            f"{self.name}.deviation": room.copy(),
            f"{self.name}.held": np.zeros(self.levels, np.int64),
            f"{self.name}.ticks": np.zeros((), np.int64),
        }

    def update(self, state: State, value: Double, present: Mask) -> tuple[State, Mask]:
        """The fields after one more value `[S]` in the sessions where `present`, and which of them found a change."""
        window = _Window(*(state[f"{self.name}.{part}"].copy() for part in ("sum", "deviation", "held")))
        ticks = state[f"{self.name}.ticks"] + present
        window.append(np.flatnonzero(present), value)
        searching = present & (ticks % self.clock == 0) & (window.size().sum(axis=1) > self.grace)
        changed = np.zeros(len(value), np.bool_)
        while (found := self._cut(window, searching)).any():
            window.drop_oldest(np.flatnonzero(found))
            changed |= found
            searching = found
        fields = {"sum": window.sum, "deviation": window.deviation, "held": window.held, "ticks": ticks}
        return {f"{self.name}.{part}": value for part, value in fields.items()}, changed

    def length(self, state: State) -> NDArray[np.int64]:
        """Values in the window, `[S]`."""
        held = state[f"{self.name}.held"]
        result: NDArray[np.int64] = (held << np.arange(self.levels)).sum(axis=1)
        return result

    def mean(self, state: State) -> Double:
        """Mean of the window, `[S]`; 0 where it is empty."""
        result: Double = state[f"{self.name}.sum"].sum(axis=(1, 2)) / np.maximum(self.length(state), 1)
        return result

    def _cut(self, window: _Window, searching: Mask) -> Mask:
        """Whether some cut splits the window `[S]` into parts whose means differ by more than epsilon (eq. 3.1)."""
        if not searching.any():
            return np.zeros(len(searching), np.bool_)
        size, total, deviation = window.in_order()
        old, old_sum = size.cumsum(axis=1), total.cumsum(axis=1)
        length, whole = old[:, -1:], old_sum[:, -1:]
        new = length - old
        usable = (size > 0) & (old >= self.shortest) & (new >= self.shortest) & searching[:, np.newaxis]
        gap = np.abs(old_sum / np.maximum(old, 1) - (whole - old_sum) / np.maximum(new, 1))
        spread = _total_deviation(size, total, deviation)[:, np.newaxis] / np.maximum(length, 1)
        doubt = np.log(2 * np.log(np.maximum(length, 2)) / self.delta)
        harmonic = 1 / np.maximum(old - self.shortest + 1, 1) + 1 / np.maximum(new - self.shortest + 1, 1)
        epsilon = np.sqrt(2 * harmonic * spread * doubt) + 2 / 3 * doubt * harmonic
        result: Mask = (usable & (gap > epsilon)).any(axis=1)
        return result


@dataclass(slots=True)
class _Window:
    """The buckets of all sessions while they are being changed."""

    sum: Double
    deviation: Double
    held: NDArray[np.int64]

    def size(self) -> NDArray[np.int64]:
        """Values per level `[S, levels]`."""
        result: NDArray[np.int64] = self.held << np.arange(self.held.shape[1])
        return result

    def append(self, rows: NDArray[np.intp], value: Double) -> None:
        """One value as a bucket of one, and full levels merged upward."""
        place = self.held[rows, 0]
        self.sum[rows, 0, place] = value[rows]
        self.deviation[rows, 0, place] = 0
        self.held[rows, 0] += 1
        top = self.held.shape[1] - 1
        for level in range(top + 1):
            rows = rows[self.held[rows, level] == self.sum.shape[2]]
            if len(rows) == 0:
                return
            if level < top:
                self._merge(rows, level)
            self._shift(rows, level, 2 if level < top else 1)

    def _merge(self, rows: NDArray[np.intp], level: int) -> None:
        """The two oldest buckets of a level as the newest of the next; deviations add up with that of the means."""
        first, second = self.sum[rows, level, 0], self.sum[rows, level, 1]
        place = self.held[rows, level + 1]
        between = (first - second) ** 2 / 2 ** (level + 1)
        self.sum[rows, level + 1, place] = first + second
        self.deviation[rows, level + 1, place] = self.deviation[rows, level, :2].sum(axis=1) + between
        self.held[rows, level + 1] += 1

    def _shift(self, rows: NDArray[np.intp], level: int, count: int) -> None:
        """Forget the oldest buckets of a level."""
        for field in (self.sum, self.deviation):
            field[rows, level, :-count] = field[rows, level, count:]
            field[rows, level, -count:] = 0
        self.held[rows, level] -= count

    def drop_oldest(self, rows: NDArray[np.intp]) -> None:
        """Forget the oldest bucket of these sessions."""
        oldest = self.held.shape[1] - 1 - (self.held[rows, ::-1] > 0).argmax(axis=1)
        for level in np.unique(oldest):
            self._shift(rows[oldest == level], int(level), 1)

    def in_order(self) -> tuple[Double, Double, Double]:
        """Size, sum and deviation of the buckets `[S, n]`, oldest first; empty places have size 0."""
        sessions, levels, places = self.sum.shape
        used = np.arange(places) < self.held[:, :, np.newaxis]
        size = np.where(used, 2.0 ** np.arange(levels)[:, np.newaxis], 0)
        ordered = [field[:, ::-1].reshape(sessions, -1) for field in (size, self.sum, self.deviation)]
        return ordered[0], ordered[1], ordered[2]


def _total_deviation(size: Double, total: Double, deviation: Double) -> Double:
    """Sum of squared deviations from the window's mean `[S]`."""
    mean = total.sum(axis=1, keepdims=True) / np.maximum(size.sum(axis=1, keepdims=True), 1)
    between = size * (total / np.maximum(size, 1) - mean) ** 2
    result: Double = (deviation + np.where(size > 0, between, 0)).sum(axis=1)
    return result
