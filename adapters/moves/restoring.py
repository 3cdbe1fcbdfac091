"""Any move, followed by restorations of the parameters it proposes."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.fields import STEPS, THETA
from acclimate.adapters.moves.base import Move, Moved, Seen
from acclimate.adapters.randomness import keys
from acclimate.adapters.requests import Reply, Request
from acclimate.adapters.restoration import SourceAverage, Stochastic, TrustRegion
from acclimate.adapters.source import Source

MASK = 71
Restoration = SourceAverage | Stochastic | TrustRegion


@dataclass(frozen=True)
class Restoring:
    """`move`, then each of `restorations` in order, in the sessions where the move changed theta.

    Fisher-masked restoration needs the gradient, which a move does not give away: it is a part of `TaughtStudent`.
    """

    move: Move
    restorations: tuple[Restoration, ...]
    seed: int = 0

    def template(self, source: Source) -> State:
        """What the move remembers; restorations remember nothing."""
        return self.move.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """The move's proposal, partly put back."""
        moved = yield from self.move.propose(source, state, seen)
        if THETA not in moved.state:
            return moved
        theta = moved.state[THETA]
        for number, restoration in enumerate(self.restorations):
            match restoration:
                case SourceAverage() | TrustRegion():
                    put_back = restoration.apply(theta, source.theta)
                case Stochastic():
                    key = keys(self.seed, MASK, number, state[STEPS])
                    put_back = restoration.apply(theta, source.theta, theta, key)
            theta = np.where((moved.selected > 0)[:, np.newaxis], put_back, theta)
        return replace(moved, state=moved.state | {THETA: theta.astype(np.float32)})
