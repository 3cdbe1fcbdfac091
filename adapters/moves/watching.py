"""Any move, watched by a drift detector: when the stream changes, say so, and perhaps go back to a better past.

The detector is fed the mean entropy, in nats, of each step's first pass. What a change leads to is composed: with
`Flagged(CHANGED)` among a recipe's resets the session returns to the source; with a ring it returns to its own best
checkpoint, less drastically; with neither the field is there for whoever decides.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.drift import Detector
from acclimate.adapters.fields import STATS, STEPS
from acclimate.adapters.moves.base import Move, Moved, Seen, only_where
from acclimate.adapters.numerics import entropy, group_mean
from acclimate.adapters.requests import Reply, Request
from acclimate.adapters.restoration import CheckpointRing
from acclimate.adapters.source import Source

CHANGED = "watching.changed"


@dataclass(frozen=True)
class Watching:
    """`move`, a `detector` over its entropies, and a `ring` of checkpoints or None.

    A checkpoint's score is the entropy at the step that ended with it, negated.
    """

    move: Move
    detector: Detector
    ring: CheckpointRing | None = None

    def template(self, source: Source) -> State:
        """What move, detector and ring remember, and whether the last step found a change."""
        fields = self.move.template(source) | self.detector.template() | {CHANGED: np.zeros((), np.bool_)}
        return fields if self.ring is None else fields | self.ring.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """The move's proposal, or the checkpoint in its place where the stream has changed."""
        moved = yield from self.move.propose(source, state, seen)
        doubt = group_mean(entropy(seen.logits), seen.rows.group, seen.sessions)
        # A NaN would stay in the detector for ever; the step it came from is rolled back as a whole.
        value = np.where(np.isfinite(doubt), doubt, 0).astype(np.float64)
        watched, changed = self.detector.update(state, value, np.isfinite(doubt))
        fields = moved.state | watched | {CHANGED: changed}
        if self.ring is not None:
            after = state | {STATS: seen.stats, STEPS: state[STEPS] + 1} | moved.state
            fields |= self.ring.take(after, -doubt)
            back = self.ring.go_back(after, changed)
            fields |= only_where(changed, back, {name: after[name] for name in back})
        return replace(moved, state=fields)
