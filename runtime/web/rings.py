"""The last points of many things, taken at the same moments: a struct of arrays that forgets the oldest."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

K = TypeVar("K", bound=Hashable)
FIRST_SLOTS = 8


class Rings(Generic[K]):
    """`moments [T]` and `points [N, F, T]`, of up to `limit` keys; N doubles as they come.

    Args:
        fields: names of the F figures of each point.
        length: T, points that are kept.
        limit: keys, at most.
    """

    def __init__(self, fields: Sequence[str], length: int, limit: int) -> None:
        self.fields = tuple(fields)
        self.limit = limit
        self._moments = np.full(length, np.nan)
        self._points: NDArray[np.float32] = np.empty((0, len(self.fields), length), np.float32)
        self._slots: dict[K, int] = {}
        self._free: list[int] = []
        self._newest = -1

    def __contains__(self, key: object) -> bool:
        return key in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def keys(self) -> tuple[K, ...]:
        """Whose points are kept."""
        return tuple(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes of all points."""
        return self._points.nbytes + self._moments.nbytes

    @property
    def room(self) -> int:
        """Keys that can still be claimed."""
        return self.limit - len(self._slots)

    def tick(self, moment: float) -> None:
        """Begin a point of everything, at Unix seconds `moment`; what is not written stays unknown."""
        self._newest = (self._newest + 1) % len(self._moments)
        self._moments[self._newest] = moment
        self._points[:, :, self._newest] = np.nan

    def claim(self, key: K) -> None:
        """Keep points of `key` from now on.

        Raises:
            ValueError: `limit` keys are kept already.
        """
        if key in self._slots:
            return
        if self.room <= 0:
            raise ValueError(f"points of {self.limit} keys are kept, as many as may be; release one")
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._points[slot] = np.nan
        self._slots[key] = slot

    def release(self, key: K) -> None:
        """Forget the points of `key`."""
        self._free.append(self._slots.pop(key))

    def write(self, key: K, point: Mapping[str, float | None]) -> None:
        """Figures of `key` at the newest moment; None where one is not known."""
        row = self._points[self._slots[key]]
        for place, name in enumerate(self.fields):
            value = point.get(name)
            row[place, self._newest] = np.nan if value is None else value

    def moments(self, after: float = 0.0) -> list[float]:
        """Unix seconds of the points that are kept, those later than `after`, oldest first."""
        chosen = self._order(after)
        return [float(moment) for moment in self._moments[chosen]]

    def series(self, key: K, after: float = 0.0) -> dict[str, list[float | None]]:
        """Each figure of `key` at `moments`; None where it was not known, nothing at all for an unknown key."""
        slot = self._slots.get(key)
        if slot is None:
            return {}
        chosen = self._order(after)
        return {name: _plain(self._points[slot, place, chosen]) for place, name in enumerate(self.fields)}

    def outline(self, key: K, count: int) -> dict[str, list[float | None]]:
        """`series`, of `count` moments at most that are spread evenly over what is kept."""
        slot = self._slots.get(key)
        if slot is None:
            return {}
        chosen = self._order(0.0)
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(count, len(chosen))).astype(np.intp)]
        return {name: _plain(self._points[slot, place, chosen]) for place, name in enumerate(self.fields)}

    def _order(self, after: float) -> NDArray[np.intp]:
        order = (np.arange(len(self._moments)) + self._newest + 1) % len(self._moments)
        return order[self._moments[order] > after]

    def _grow(self) -> None:
        before, fields, length = self._points.shape
        slots = min(self.limit, max(FIRST_SLOTS, 2 * before))
        grown = np.full((slots, fields, length), np.nan, np.float32)
        grown[:before] = self._points
        self._points = grown
        self._free.extend(reversed(range(before, slots)))


def _plain(values: NDArray[np.float32]) -> list[float | None]:
    return [None if math.isnan(value) else float(f"{value:.6g}") for value in values.tolist()]
