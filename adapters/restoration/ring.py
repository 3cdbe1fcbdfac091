"""Checkpoints of a session's own past, to go back to when what came after was bad.

A reset forgets everything; a checkpoint forgets what was learnt since it was taken. Each remembers how the canary
samples were answered then, so that the one to go back to can be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.fields import STATS, STEPS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.source import Source

PREFIX = "ring."
RING_THETA = "ring.theta"
RING_STATS = "ring.stats"
RING_SCORE = "ring.score"
RING_VERSION = "ring.version"
"""`[S, K]` int64: the version that served when each checkpoint was taken, 0 where there is none."""
SERVING = "ring.serving"
"""`[S]` int64: the version that serves before the step; whoever numbers versions writes it."""


@dataclass(frozen=True, slots=True)
class CheckpointRing:
    """The latest `capacity` checkpoints, one every `every` steps; the oldest is overwritten.

    It costs `capacity * (4 P + 4 Q + 12) + 8` bytes per session.
    """

    capacity: int = 4
    every: int = 16

    def template(self, source: Source) -> State:
        """Checkpoints `[K, P]` and `[K, Q]`, their scores and versions `[K]`: none taken."""
        return {
            RING_THETA: np.repeat(source.theta[np.newaxis], self.capacity, axis=0),
            RING_STATS: np.repeat(source.stats[np.newaxis], self.capacity, axis=0),
            RING_SCORE: np.zeros(self.capacity, np.float32),
            RING_VERSION: np.zeros(self.capacity, np.int64),
            SERVING: np.zeros((), np.int64),
        }

    def due(self, state: State) -> NDArray[np.bool_]:
        """Which sessions `[S]` take a checkpoint after this step, if it is accepted."""
        result: NDArray[np.bool_] = (state[STEPS] > 0) & (state[STEPS] % self.every == 0)
        return result

    def take(self, state: State, score: Float, where: NDArray[np.bool_]) -> State:
        """The ring's fields `[S, K, ...]` with a checkpoint of `state` more in the sessions `[S]` where one is taken.

        `score [S]`, higher is better, is kept beside it.
        """
        turn = state[STEPS] // self.every
        here = where[:, np.newaxis] & (np.arange(self.capacity) == ((turn - 1) % self.capacity)[:, np.newaxis])
        return {
            RING_THETA: np.where(here[:, :, np.newaxis], state[THETA][:, np.newaxis], state[RING_THETA]),
            RING_STATS: np.where(here[:, :, np.newaxis], state[STATS][:, np.newaxis], state[RING_STATS]),
            RING_SCORE: np.where(here, score[:, np.newaxis], state[RING_SCORE]).astype(np.float32),
            RING_VERSION: np.where(here, state[SERVING][:, np.newaxis] + 1, state[RING_VERSION]),
        }

    def best(self, state: State) -> NDArray[np.intp]:
        """The place `[S]` of the checkpoint of the highest score, the latest of equals; -1 where none is taken."""
        taken = state[RING_VERSION] > 0
        score = np.where(taken, state[RING_SCORE], -np.inf)
        top = taken & (score == score.max(axis=1, keepdims=True))
        place = np.where(top, state[RING_VERSION], 0).argmax(axis=1)
        return np.where(taken.any(axis=1), place, -1).astype(np.intp)
