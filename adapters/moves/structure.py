"""DeYO: learn from sure predictions that need the object's structure (Lee et al. 2024, eqs. 5-9, algorithm 1).

A prediction that survives when the patches of its image are shuffled rests on texture or background, not on shape.
The drop in the probability of the predicted class, PLPD, says how much the structure mattered.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.asking import ask_outputs
from acclimate.adapters.augmentations import Space, shuffled_patches
from acclimate.adapters.bank import State
from acclimate.adapters.fields import STEPS
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen
from acclimate.adapters.moves.following import Following
from acclimate.adapters.numerics import softmax
from acclimate.adapters.objectives import entropy_loss
from acclimate.adapters.randomness import keys, rank
from acclimate.adapters.requests import Forward, Reply, Request
from acclimate.adapters.source import Source

SHUFFLE = 11


@dataclass(frozen=True)
class StructureAware:
    """DeYO's update.

    Attributes:
        following: optimiser, pull, and whether gradients flow through the batch statistics.
        margin: entropy in nats below which a prediction is looked at, 0.5 ln C in the paper.
        reference: entropy in nats at which the entropy weight is 1, 0.4 ln C in the paper.
        drop: least PLPD of a sample to learn from, 0.2 in the paper.
        patches: tiles along each side of the image, 4 in the paper.
        seed: of the shuffles.
    """

    following: Following
    margin: float
    reference: float
    drop: float = 0.2
    patches: int = 4
    seed: int = 0

    def template(self, source: Source) -> State:
        """What the optimiser remembers."""
        return self.following.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Look at the sure predictions again with shuffled patches, and learn from those that changed."""
        value, group = entropy_loss(seen.logits), seen.rows.group
        sure = np.flatnonzero(value.loss < self.margin)
        weight = np.zeros(len(group), np.float32)
        if len(sure) > 0:
            fall = yield from self._fall(source, state, seen, sure)
            trusted = np.exp(self.reference - value.loss[sure]) + np.exp(fall)
            weight[sure] = np.where(fall > self.drop, trusted, 0)
        return (yield from self.following.descend(source, state, seen, value, weight))

    def _fall(
        self, source: Source, state: State, seen: Seen, sure: np.ndarray[tuple[int], np.dtype[np.intp]]
    ) -> Generator[Request, Reply, Float]:
        """PLPD of the rows at these positions."""
        rows = (seen.rows if self.following.through_statistics else seen.still()).take(sure)
        key = keys(self.seed, SHUFFLE, state[STEPS][rows.group], rank(seen.rows.group)[sure])
        shuffled = shuffled_patches(rows.inputs, key, Space.of(source.canary_inputs), self.patches)
        outputs = yield from ask_outputs(Forward(replace(rows, inputs=shuffled)))
        before, after = softmax(seen.logits[sure]), softmax(outputs.logits)
        label = before.argmax(axis=1)[:, np.newaxis]
        result: Float = (np.take_along_axis(before, label, 1) - np.take_along_axis(after, label, 1))[:, 0]
        return result
