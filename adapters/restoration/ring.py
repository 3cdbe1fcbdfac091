"""Checkpoints of a session's own past, to go back to when what came after was bad.

A reset forgets everything; a checkpoint forgets what was learnt since it was taken. Each remembers how the session
was doing then, so that the one to go back to can be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.fields import STATS, STEPS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.source import Source

RING_THETA = "ring.theta"
RING_STATS = "ring.stats"
RING_SCORE = "ring.score"


@dataclass(frozen=True, slots=True)
class CheckpointRing:
    """The latest `capacity` checkpoints, one every `every` steps; the oldest is overwritten.

    It costs `capacity * (P + Q + 1) * 4` bytes per session.
    """

    capacity: int = 4
    every: int = 16

    def template(self, source: Source) -> State:
        """Checkpoints `[K, P]` and `[K, Q]`, all of the source at first, and their scores `[K]`, all zero."""
        return {
            RING_THETA: np.repeat(source.theta[np.newaxis], self.capacity, axis=0),
            RING_STATS: np.repeat(source.stats[np.newaxis], self.capacity, axis=0),
            RING_SCORE: np.zeros(self.capacity, np.float32),
        }

    def take(self, state: State, score: Float) -> State:
        """The ring's fields `[S, K, ...]` after this step, `score [S]` (higher is better) kept beside what it is of."""
        turn = state[STEPS] // self.every
        due = (state[STEPS] > 0) & (state[STEPS] % self.every == 0)
        here = due[:, np.newaxis] & (np.arange(self.capacity) == ((turn - 1) % self.capacity)[:, np.newaxis])
        return {
            RING_THETA: np.where(here[:, :, np.newaxis], state[THETA][:, np.newaxis], state[RING_THETA]),
            RING_STATS: np.where(here[:, :, np.newaxis], state[STATS][:, np.newaxis], state[RING_STATS]),
            RING_SCORE: np.where(here, score[:, np.newaxis], state[RING_SCORE]).astype(np.float32),
        }

    def go_back(self, state: State, where: NDArray[np.bool_]) -> State:
        """Theta and statistics of the best checkpoint, in the sessions `[S]` where that is wanted.

        What optimisers and filters remember is left alone; whoever goes back says what else to forget.
        """
        best = state[RING_SCORE].argmax(axis=1)
        rows = np.arange(len(best))
        return {
            THETA: np.where(where[:, np.newaxis], state[RING_THETA][rows, best], state[THETA]),
            STATS: np.where(where[:, np.newaxis], state[RING_STATS][rows, best], state[STATS]),
        }
