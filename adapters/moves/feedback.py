"""Learning from labels that arrived as feedback: cross-entropy of the rows that have one."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.moves.base import Moved, Seen
from acclimate.adapters.moves.following import Following
from acclimate.adapters.objectives.agreement import label_cross_entropy
from acclimate.adapters.requests import Reply, Request
from acclimate.adapters.source import Source


@dataclass(frozen=True)
class Labelled:
    """Plain supervised descent; rows without a label take no part."""

    following: Following

    def template(self, source: Source) -> State:
        """What the optimiser remembers."""
        return self.following.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Sessions without a label keep theta and the optimiser's state."""
        value = label_cross_entropy(seen.logits, seen.labels)
        weight = (seen.labels >= 0).astype(np.float32)
        return (yield from self.following.descend(source, state, seen, value, weight))
