"""CAFA's update: descend on the alignment of features with the classes of the source (Jung et al. 2023)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.features import Precision
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen
from acclimate.adapters.moves.following import Following
from acclimate.adapters.objectives.alignment import class_alignment
from acclimate.adapters.requests import Reply, Request
from acclimate.adapters.source import Source


@dataclass(frozen=True, eq=False)
class Aligning:
    """Every sample counts, with the class it was answered with.

    Attributes:
        following: optimiser, and whether gradients flow through the batch statistics.
        centres: `[C, D]` of the source's classes.
        precision: of its features around them.
    """

    following: Following
    centres: Float
    precision: Precision

    def template(self, source: Source) -> State:
        """What the optimiser remembers."""
        return self.following.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """One gradient of the features."""
        value = class_alignment(seen.features, self.centres, self.precision, seen.logits.argmax(axis=1))
        weight = np.ones(len(seen.logits), np.float32)
        return (yield from self.following.descend(source, state, seen, value, weight))
