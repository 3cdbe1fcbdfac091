"""A small memory of a stream's samples, balanced over predicted classes, preferring recent and certain ones.

RoTTA's category-balanced sampling with timeliness and uncertainty (Yuan, Xie and Li 2023, section 3.3, algorithm 1),
in arrays of fixed size per session, filled for all sessions of a batch at once: the only loop is over the samples
that one session adds, which must come one after the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.randomness import rank
from acclimate.adapters.requests import Index
from acclimate.adapters.source import Source

INPUTS = "memory.inputs"
LABEL = "memory.label"
UNCERTAINTY = "memory.uncertainty"
AGE = "memory.age"
FREE = -1


@dataclass(frozen=True, slots=True)
class BalancedMemory:
    """At most `capacity` samples, and per predicted class at most its equal share, rounded up.

    A sample's score is `timeliness / (1 + e^(-age / capacity)) + uncertainty H / ln C` (eq. 5): the highest goes
    first, and only for a newcomer with a lower one.
    """

    capacity: int = 64
    timeliness: float = 1.0
    uncertainty: float = 1.0

    def template(self, source: Source) -> State:
        """Inputs `[K, ...]` in the model's dtype, and their predicted classes (-1: free), entropies and ages `[K]`."""
        samples = source.canary_inputs
        return {
            INPUTS: np.zeros((self.capacity, *samples.shape[1:]), samples.dtype),
            LABEL: np.full(self.capacity, FREE, np.int64),
            UNCERTAINTY: np.zeros(self.capacity, np.float32),
            AGE: np.zeros(self.capacity, np.int64),
        }

    def add(
        self, state: State, inputs: NDArray[Any], label: Index, entropy: Float, group: Index, classes: int
    ) -> State:
        """The memory's fields after the rows `[B]` of each session were offered to it in their order."""
        fields = {name: state[name].copy() for name in (INPUTS, LABEL, UNCERTAINTY, AGE)}
        position, came_from = rank(group), np.full(fields[LABEL].shape, -1, np.intp)
        for turn in range(int(position.max(initial=-1)) + 1):
            rows = np.flatnonzero(position == turn)
            owner = group[rows]
            slot, enters = self._slot(fields, owner, label[rows], entropy[rows], classes)
            rows, owner, slot = rows[enters], owner[enters], slot[enters]
            fields[LABEL][owner, slot] = label[rows]
            fields[UNCERTAINTY][owner, slot] = entropy[rows]
            fields[AGE][owner, slot] = 0
            came_from[owner, slot] = rows
            everyone = group[position == turn]
            fields[AGE][everyone] += fields[LABEL][everyone] != FREE
        owner, slot = np.nonzero(came_from >= 0)
        fields[INPUTS][owner, slot] = inputs[came_from[owner, slot]]
        return fields

    def _slot(
        self, fields: State, owner: Index, label: Index, entropy: Float, classes: int
    ) -> tuple[Index, NDArray[np.bool_]]:
        """Where a newcomer of each of these sessions goes, and whether it goes anywhere."""
        held = fields[LABEL][owner]
        used, alike = held != FREE, held == label[:, np.newaxis]
        count = (held[:, :, np.newaxis] == np.arange(classes)).sum(axis=1)
        crowded = alike.sum(axis=1) >= self.capacity / classes
        room = ~crowded & ~used.all(axis=1)
        biggest = count == count.max(axis=1, keepdims=True)
        of_biggest = used & np.take_along_axis(biggest, np.maximum(held, 0), axis=1)
        candidates = np.where(crowded[:, np.newaxis], alike, of_biggest)
        score = self._score(fields[AGE][owner], fields[UNCERTAINTY][owner], classes)
        score = np.where(candidates, score, -np.inf)
        newcomer = self._score(np.zeros(len(owner), np.int64), entropy, classes)
        slot = np.where(room, used.argmin(axis=1), score.argmax(axis=1))
        return slot, room | (score.max(axis=1) > newcomer)

    def _score(self, age: NDArray[np.int64], entropy: Float, classes: int) -> NDArray[np.float64]:
        old = self.timeliness / (1 + np.exp(-age / self.capacity))
        result: NDArray[np.float64] = old + self.uncertainty * entropy / math.log(classes)
        return result


def timeliness_weight(age: NDArray[np.int64], capacity: int) -> Float:
    """`e^(-a) / (1 + e^(-a))` with `a = age / capacity`: how much a remembered sample counts (RoTTA, eq. 8)."""
    decayed = np.exp(-age / capacity)
    result: Float = (decayed / (1 + decayed)).astype(np.float32)
    return result
