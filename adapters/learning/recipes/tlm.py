"""`tlm`: learn from what is read, by lowering the perplexity of the inputs that surprise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from acclimate.adapters.learning.compose import documents
from acclimate.adapters.learning.lesson import Anchors, Descent, Holding, Lesson
from acclimate.adapters.learning.objectives import input_perplexity
from acclimate.adapters.learning.units import Example, Unit


@dataclass(frozen=True, slots=True)
class Tlm:
    """TLM (Hu et al. 2025, arXiv 2505.20633, eqs. 3 to 5): `S(x) CE(x)`, `S = 0.1 exp(CE - 3)` above 3 nats.

    The paper's learning rate, 5e-5 over a whole data set, is far too small for one user's few texts; ours is chosen for
    some dozens of steps. A threshold of 0 learns from every text, and `scale` then carries the weight of `exp(-3)`.
    """

    lr: float = 1e-3
    epochs: int = 4
    batch: int = 4
    decay: float = 0.0
    warmup: float = 0.1
    threshold: float = 3.0
    scale: float = 0.1
    held_out: float = 0.2
    margin: float = 0.01
    replay: float = 0.0
    kl: float = 0.0
    pull: float = 0.0

    def build(self) -> Lesson:
        """All tokens of prompts and completions count."""
        return Lesson(
            "tlm",
            documents,
            _held,
            partial(input_perplexity, threshold=self.threshold, scale=self.scale),
            Descent(self.lr, self.epochs, self.batch, self.decay, self.warmup),
            Anchors(self.replay, self.kl, self.pull),
            Holding(self.held_out, margin=self.margin),
        )


def _held(_shown: Sequence[Example], held: Sequence[Example], room: int) -> list[Unit]:
    return documents(held, np.random.default_rng(0), room)
