"""Any move, followed by restorations of the parameters it proposes."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.fields import STEPS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Move, Moved, Seen
from acclimate.adapters.randomness import keys
from acclimate.adapters.requests import Reply, Request
from acclimate.adapters.restoration import FisherMasked, FisherPull, Part, Stochastic, TrustRegion
from acclimate.adapters.source import Source

MASK = 71


@dataclass(frozen=True)
class Restoring:
    """`move`, then each of `parts` in order, in the sessions where the move changed theta."""

    move: Move
    parts: tuple[Part, ...]
    seed: int = 0

    def template(self, source: Source) -> State:
        """What the move remembers; restorations remember nothing."""
        return self.move.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """The move's proposal, partly put back."""
        moved = yield from self.move.propose(source, state, seen)
        if THETA not in moved.state or moved.gradient is None:
            return moved
        theta = moved.state[THETA]
        for number, part in enumerate(self.parts):
            key = keys(self.seed, MASK, number, state[STEPS])
            put_back: Float
            match part:
                case FisherPull():
                    put_back = part.apply(theta, source.theta, source.fisher)
                case TrustRegion():
                    put_back = part.apply(theta, source.theta)
                case Stochastic() | FisherMasked():
                    put_back = part.apply(theta, source.theta, moved.gradient, key)
            theta = np.where((moved.selected > 0)[:, np.newaxis], put_back, theta)
        return replace(moved, state=moved.state | {THETA: theta.astype(np.float32)})
