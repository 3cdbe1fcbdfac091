"""`supervised`: learn from prompts with their completions: corrections, labels, examples of a style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from acclimate.adapters.learning.compose import pairs
from acclimate.adapters.learning.lesson import Anchors, Descent, Holding, Lesson
from acclimate.adapters.learning.objectives import contrast, likelihood
from acclimate.adapters.learning.units import Example, Unit


@dataclass(frozen=True, slots=True)
class Supervised:
    """Mean negative log-probability of completions; of examples with candidates, their contrast.

    With `contrast` off, candidates are ignored and the completion alone counts, at about half the cost. With
    `temperature` over 1 the candidates' scores are flattened before they are compared.
    """

    lr: float = 1e-3
    epochs: int = 3
    batch: int = 4
    decay: float = 0.0
    warmup: float = 0.1
    contrast: bool = True
    temperature: float = 1.0
    held_out: float = 0.2
    folds: int = 0
    margin: float = 0.01
    replay: float = 0.0
    kl: float = 0.0
    pull: float = 0.0

    def build(self) -> Lesson:
        """The loss on completions only; documents among the examples count as a whole."""
        return Lesson(
            "supervised",
            pairs if self.contrast else _plain,
            _held if self.contrast else _held_plain,
            partial(contrast, temperature=self.temperature) if self.contrast else likelihood,
            Descent(self.lr, self.epochs, self.batch, self.decay, self.warmup),
            Anchors(self.replay, self.kl, self.pull),
            Holding(self.held_out, self.folds, self.margin),
        )


def _plain(examples: Sequence[Example], random: np.random.Generator, room: int) -> list[Unit]:
    return pairs([Example(example.prompt, example.completion) for example in examples], random, room)


def _held(_shown: Sequence[Example], held: Sequence[Example], room: int) -> list[Unit]:
    return pairs(held, np.random.default_rng(0), room)


def _held_plain(_shown: Sequence[Example], held: Sequence[Example], room: int) -> list[Unit]:
    return _plain(held, np.random.default_rng(0), room)
