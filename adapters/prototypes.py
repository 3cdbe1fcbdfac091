"""T3A: classify by prototypes that the stream's own confident features build (Iwasawa and Matsuo 2021, algorithm 1).

No parameter moves. A session keeps, for each class, the features it was surest of; the rows of the last layer's weight
are the first of them. An answer is the product of the features with each class's normalised sum of normalised supports;
the layer's bias plays no part after that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.errors import RecipeError
from acclimate.adapters.features import FeatureStatistics
from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import entropy
from acclimate.adapters.requests import Index
from acclimate.adapters.source import Source

SUPPORTS = "prototypes.supports"
ENTROPY = "prototypes.entropy"
FREE = np.float32(1e9)
"""Entropy of a place that holds no support; no answer is as unsure."""
MOST_NUMBERS = 2**20
TINY = np.float32(1e-12)


def required(source: Source, recipe: str) -> FeatureStatistics:
    """The source's features.

    Raises:
        RecipeError: the bundle has none.
    """
    if source.features is None:
        raise RecipeError(
            f"recipe {recipe!r}: the bundle has no features; export the model again, with a linear layer as its last"
        )
    return source.features


@dataclass(frozen=True, slots=True)
class Prototypes:
    """The output stage.

    Attributes:
        supports: features kept per class, those of the lowest entropy; the paper's M, 20 in common use.
    """

    reads_features: ClassVar[bool] = True
    supports: int = 20

    def template(self, source: Source) -> State:
        """Supports `[C, M, D]` and their entropies `[C, M]` in nats; at first the layer's rows, as it answers them.

        Raises:
            RecipeError: the bundle has no features, or the supports of one session would take more than 4 MiB.
        """
        features, classes = required(source, "t3a"), source.classes
        if classes * self.supports * features.width > MOST_NUMBERS:
            most = MOST_NUMBERS // (classes * features.width)
            raise RecipeError(
                f"recipe 't3a': supports is {self.supports}; {classes} classes of {features.width} features have room "
                f"for {most} in the 4 MiB that a session may keep"
            )
        empty: State = {
            SUPPORTS: np.zeros((1, classes, self.supports, features.width), np.float32),
            ENTROPY: np.full((1, classes, self.supports), FREE, np.float32),
        }
        logits = (features.weight @ features.weight.T + features.bias).astype(np.float32)
        first = self._remember(empty, logits, features.weight, np.zeros(classes, np.intp))
        return {name: value[0] for name, value in first.items()}

    def apply(self, source: Source, state: State, logits: Float, group: Index, features: Float) -> tuple[Float, State]:
        """Products `[B, C]` with the prototypes, this batch's features among their supports.

        Where a pass has no features the logits stay: before its first step a session is answered by the frozen graph.
        """
        if features.size == 0:
            return logits, {}
        kept = self._remember(state, logits, features, group)
        held = (kept[ENTROPY] < FREE)[..., np.newaxis]
        length = np.linalg.norm(kept[SUPPORTS], axis=-1, keepdims=True)
        total = np.where(held, kept[SUPPORTS] / np.maximum(length, TINY), 0).sum(axis=2, dtype=np.float32)
        prototypes = total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), TINY)
        answers: Float = np.einsum("bd,bcd->bc", features, prototypes[group])
        return answers, kept

    def _remember(self, state: State, logits: Float, features: Float, group: Index) -> State:
        """The fields after the rows `[B]` of each session were offered to the class that they were answered with."""
        sessions, classes, places = state[ENTROPY].shape
        held = np.arange(sessions * classes * places) // places
        slot = np.concatenate([held, group * classes + logits.argmax(axis=1)])
        doubt = np.concatenate([state[ENTROPY].reshape(-1), entropy(logits)])
        order = np.lexsort((doubt, slot))
        # Each class holds `places` entries already, free ones among them, so the first so many of each are all there.
        starts = np.searchsorted(slot[order], np.arange(sessions * classes))
        chosen = order[starts[:, np.newaxis] + np.arange(places)].reshape(sessions, classes, places)
        every = np.concatenate([state[SUPPORTS].reshape(len(held), -1), features])
        return {SUPPORTS: every[chosen].astype(np.float32), ENTROPY: doubt[chosen].astype(np.float32)}
