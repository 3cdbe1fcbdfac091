"""`ttt`: few-shot test-time training: learn a task from its demonstrations, in the form they will be shown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from acclimate.adapters.learning.compose import demonstrations, in_context
from acclimate.adapters.learning.lesson import Anchors, Descent, Holding, Lesson
from acclimate.adapters.learning.objectives import likelihood


@dataclass(frozen=True, slots=True)
class Ttt:
    """Test-time training (Akyürek et al. 2025, arXiv 2411.07279): `orders` shuffles of the demonstrations an epoch.

    The loss is on all outputs and no input. Two halves of the demonstrations judge each other before what was learnt
    from all of them is kept: with few demonstrations a held-out part would cost too much. Where a task's answers can be
    told from each other they have to be right more often than by guessing: so few steps teach no task from nothing.
    Questions are put in the form of `transformations` by the caller, who also votes over them; answers come with the
    demonstrations in the prompt.
    """

    lr: float = 3e-4
    epochs: int = 2
    batch: int = 2
    decay: float = 0.01
    warmup: float = 0.1
    orders: int = 8
    folds: int = 2
    held_out: float = 0.2
    margin: float = 0.01
    replay: float = 0.0
    kl: float = 0.0
    pull: float = 0.0

    def build(self) -> Lesson:
        """Held-out examples are judged after the others, as they will be asked."""
        return Lesson(
            "ttt",
            partial(demonstrations, orders=self.orders),
            in_context,
            likelihood,
            Descent(self.lr, self.epochs, self.batch, self.decay, self.warmup),
            Anchors(self.replay, self.kl, self.pull),
            Holding(self.held_out, self.folds, self.margin, beyond_guessing=True),
        )
