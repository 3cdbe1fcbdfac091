"""A lesson: what a recipe composes for the learner to carry out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from acclimate.adapters.language import TokenRows, TokenScores
from acclimate.adapters.learning.objectives import Loss
from acclimate.adapters.learning.units import Example, Targets, Unit


class Compose(Protocol):
    """The units of an epoch, from the examples; `room` is the most tokens of a unit."""

    def __call__(self, examples: Sequence[Example], random: np.random.Generator, room: int, /) -> list[Unit]:
        """Units for these examples."""


class Judge(Protocol):
    """The units that tell how well held-out examples are known to a session that was shown the others."""

    def __call__(self, shown: Sequence[Example], held: Sequence[Example], room: int, /) -> list[Unit]:
        """Units for the held examples."""


class Objective(Protocol):
    """The loss of the units of a step."""

    def __call__(self, scores: TokenScores, rows: TokenRows, targets: Targets, sessions: int, /) -> Loss:
        """Losses `[S]`, and cotangents."""


@dataclass(frozen=True, slots=True)
class Descent:
    """AdamW, `batch` units a step, the learning rate warmed up and brought down as `schedule.factor` says."""

    lr: float
    epochs: int
    batch: int
    decay: float = 0.0
    warmup: float = 0.1
    cosine: bool = True


@dataclass(frozen=True, slots=True)
class Anchors:
    """What holds a session to what it and the source knew.

    Attributes:
        replay: units of earlier examples in an epoch, as a share of those of new ones.
        kl: weight of the divergence from the source on replayed texts and canaries.
        pull: beta of the pull toward the source by its Fisher information on the canaries.
    """

    replay: float = 0.0
    kl: float = 0.0
    pull: float = 0.0


@dataclass(frozen=True, slots=True)
class Holding:
    """How it is decided whether what was learnt is kept, from examples that it was not learnt from.

    Attributes:
        share: of the examples that is held out where there are no folds; they are never learnt from.
        folds: where over 1, the examples are split in so many folds. For each, a copy of the session learns from the
            others and is judged on it; the session itself learns from all, for as long as the copies gained.
        margin: nats that the mean held-out loss has to fall by, besides `errors` standard errors of the fall.
        errors: see `margin`.
        beyond_guessing: whether held-out answers that have rivals must be right more often than by guessing.
    """

    share: float = 0.2
    folds: int = 0
    margin: float = 0.01
    errors: float = 1.0
    beyond_guessing: bool = False


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Texts that the model writes to learn from them: `samples` for each prompt, of at most `max_tokens`."""

    samples: int = 8
    max_tokens: int = 64
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """Everything the learner needs to know of a recipe; `epochs` of 0 in `descent`: it never learns."""

    name: str
    compose: Compose
    judge: Judge
    objective: Objective
    descent: Descent
    anchors: Anchors = field(default_factory=Anchors)
    holding: Holding = field(default_factory=Holding)
    rollouts: Rollouts | None = None
