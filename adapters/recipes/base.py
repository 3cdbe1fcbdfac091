"""A recipe: a named composition of the parts that a step is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.fields import STATS, STEPS, STRIKES, THETA
from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Move
from acclimate.adapters.outputs import AsIs, OutputStage
from acclimate.adapters.pacing import Pace
from acclimate.adapters.restoration import CheckpointRing, Reset
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Blend, Statistics
from acclimate.adapters.watch import Watch


@dataclass(frozen=True)
class Recipe:
    """What a session does with the samples it has gathered.

    Attributes:
        name: how clients ask for it.
        batch_rows: samples gathered before a step; 0 means the recipe never learns.
        statistics: how the running normalisation statistics follow the stream.
        move: how theta moves, or None for recipes that only follow statistics.
        outputs: how the answers are corrected, whatever computed them.
        guards: what a proposal must pass.
        resets: what sends a session back after a step, besides too many refusals in a row.
        ring: checkpoints to go back to, or None: it goes back to the source.
        reads_labels: whether true classes that arrive as feedback change what is learnt.
        watch: what tells drift of the stream from what the steps see, or None.
        pace: when a session steps at all, or None: whenever it has gathered a batch.
        answers_late: whether a request is answered by a step over its own samples, and not learnt from afterwards.
    """

    name: str
    batch_rows: int
    statistics: Statistics = field(default_factory=lambda: Blend(prior=0.0))
    move: Move | None = None
    outputs: OutputStage = field(default_factory=AsIs)
    guards: Guards = field(default_factory=Guards)
    resets: tuple[Reset, ...] = ()
    ring: CheckpointRing | None = None
    watch: Watch | None = field(default_factory=Watch)
    pace: Pace | None = None
    reads_labels: bool = False
    answers_late: bool = False

    @property
    def learns(self) -> bool:
        """Whether a session of this recipe ever changes."""
        return self.batch_rows > 0


def template(recipe: Recipe, source: Source) -> State:
    """One session's initial state: source parameters and statistics, and what the parts remember."""
    state: State = {
        THETA: source.theta.copy(),
        STATS: source.stats.copy(),
        STRIKES: np.zeros((), np.int64),
        STEPS: np.zeros((), np.int64),
    }
    state |= recipe.outputs.template(source)
    if recipe.learns and recipe.watch is not None:
        state |= recipe.watch.template(source)
    if recipe.ring is not None:
        state |= recipe.ring.template(source)
    if recipe.pace is not None:
        state |= recipe.pace.template(source.classes)
    return state if recipe.move is None else state | recipe.move.template(source)
