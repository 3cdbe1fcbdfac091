"""RoTTA: a student learns a remembered, balanced part of the stream from its teacher (Yuan, Xie and Li 2023).

Statistics move only with the memory's batch, by a fixed small share, so that correlated streams and single samples
do not drag them along. The session serves the teacher; student and student statistics are fields beside it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.asking import ask_gradients, ask_outputs
from acclimate.adapters.augmentations import Space, strong_view
from acclimate.adapters.bank import State
from acclimate.adapters.fields import STATS, STEPS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.memory import AGE, FREE, INPUTS, LABEL, BalancedMemory, timeliness_weight
from acclimate.adapters.moves.base import Moved, Seen
from acclimate.adapters.numerics import entropy, group_count, group_sum, softmax
from acclimate.adapters.objectives.agreement import cross_entropy
from acclimate.adapters.optimisers import Optimiser
from acclimate.adapters.randomness import keys
from acclimate.adapters.requests import Forward, Gradient, Index, Outputs, Reply, Request, Rows
from acclimate.adapters.source import Source
from acclimate.adapters.statistics import Running

STUDENT = "remembering.student"
STUDENT_STATS = "remembering.stats"
VIEW = 31


@dataclass(frozen=True)
class Remembering:
    """RoTTA's update, one for each step: the paper updates every 64 samples, here `batch_rows` says how often.

    Attributes:
        optimiser: of the student, Adam at 1e-3 in public settings.
        memory: which samples are kept.
        statistics: how robust batch normalisation follows the memory's statistics, 0.05 in the paper.
        pace: share of the student that the teacher takes at each update, 0.001 in the paper.
        seed: of the augmented views.
    """

    optimiser: Optimiser
    memory: BalancedMemory
    statistics: Running
    pace: float = 0.001
    seed: int = 0

    def template(self, source: Source) -> State:
        """The student `[P]`, its statistics `[Q]`, the memory, and the optimiser's own."""
        student = {STUDENT: source.theta.copy(), STUDENT_STATS: source.stats.copy()}
        return student | self.memory.template(source) | self.optimiser.template(source.parameters.size)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Remember, let teacher and student look at the memory, and step the student toward the teacher."""
        label, uncertainty = seen.logits.argmax(axis=1), entropy(seen.logits)
        group, sessions = seen.rows.group, seen.sessions
        memory = self.memory.add(state, seen.rows.inputs, label, uncertainty, group, source.classes)
        owner, slot = np.nonzero(memory[LABEL] != FREE)
        samples, age = memory[INPUTS][owner, slot], memory[AGE][owner, slot]
        teacher_rows = self._rows(samples, state[THETA], state[STATS], owner)
        teacher = yield from ask_outputs(Forward(teacher_rows))
        key = keys(self.seed, VIEW, state[STEPS][owner], slot)
        views = strong_view(samples, key, Space.of(source.canary_inputs))
        student_rows = self._rows(views, state[STUDENT], state[STUDENT_STATS], owner)
        student = yield from ask_outputs(Forward(student_rows))
        value = cross_entropy(student.logits, softmax(teacher.logits))
        count = group_count(owner, sessions)
        share = (timeliness_weight(age, self.memory.capacity) / count[owner]).astype(np.float32)
        reply = yield from ask_gradients(Gradient(student_rows, value.cotangent * share[:, np.newaxis]))
        gradient = group_sum(reply.grad_theta, owner, sessions)
        learnt, moments = self.optimiser.next(state, state[STUDENT], gradient)
        fields = {
            THETA: (1 - np.float32(self.pace)) * state[THETA] + np.float32(self.pace) * learnt,
            STATS: self._moved(state[STATS], teacher, owner),
            STUDENT: learnt,
            STUDENT_STATS: self._moved(state[STUDENT_STATS], student, owner),
        }
        loss = group_sum(share * value.loss, owner, sessions)
        return Moved(fields | memory | moments, loss, count)

    def _rows(self, inputs: NDArray[Any], theta: Float, stats: Float, owner: Index) -> Rows:
        alpha = np.full(len(owner), self.statistics.momentum, np.float32)
        return Rows(inputs, theta[owner], stats[owner], owner, alpha)

    def _moved(self, stats: Float, outputs: Outputs, owner: Index) -> Float:
        one_row_each = np.unique(owner, return_index=True)[1]
        alpha = self.statistics.alpha(group_count(owner, len(stats)))
        return self.statistics.move(stats, outputs.batch_stats[one_row_each], alpha)
