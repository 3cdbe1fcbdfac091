"""`majority`: learn from the answers that most of the model's own texts agree on. Experimental."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from acclimate.adapters.learning.compose import pairs
from acclimate.adapters.learning.lesson import Anchors, Descent, Holding, Lesson, Rollouts
from acclimate.adapters.learning.objectives import policy
from acclimate.adapters.learning.units import Example, Unit


@dataclass(frozen=True, slots=True)
class Majority:
    """TTRL (Zuo et al. 2025, arXiv 2504.16084): reward 1 where a text's answer is the majority's, GRPO's advantages.

    As in SPINE and ETTRL only the most uncertain share of tokens is updated, and entropy is kept in a band, against
    the collapse onto one answer that votes alone lead to. A verifier's word replaces the vote where there is one.
    What is agreed on may be wrong, so examples with known completions are held out to judge it by.
    """

    lr: float = 1e-4
    epochs: int = 4
    batch: int = 8
    decay: float = 0.0
    warmup: float = 0.1
    samples: int = 8
    max_tokens: int = 64
    temperature: float = 1.0
    forking: float = 0.8
    low: float = 0.1
    high: float = 3.0
    band: float = 0.01
    held_out: float = 0.5
    margin: float = 0.0
    replay: float = 0.0
    kl: float = 0.1
    pull: float = 0.0

    def build(self) -> Lesson:
        """Completions of the examples that are not held out are not looked at."""
        return Lesson(
            "majority",
            pairs,
            _held,
            partial(policy, forking=self.forking, low=self.low, high=self.high, band=self.band),
            Descent(self.lr, self.epochs, self.batch, self.decay, self.warmup),
            Anchors(self.replay, self.kl, self.pull),
            Holding(self.held_out, margin=self.margin),
            Rollouts(self.samples, self.max_tokens, self.temperature),
        )


def _held(_shown: Sequence[Example], held: Sequence[Example], room: int) -> list[Unit]:
    """The known completions of held-out examples, each by its likelihood."""
    known = [Example(example.prompt, example.completion) for example in held if len(example.completion)]
    return pairs(known, np.random.default_rng(0), room)
