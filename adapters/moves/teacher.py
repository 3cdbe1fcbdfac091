"""CoTTA: a slow teacher answers and teaches a student that is now and then put back (Wang et al. 2022, section 3).

The paper adapts every parameter; here, as everywhere in a session, only the adaptable ones. The session serves the
teacher; the student is a field beside it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.asking import ask_gradients, ask_outputs
from acclimate.adapters.augmentations import Space, strong_view
from acclimate.adapters.bank import State
from acclimate.adapters.fields import STEPS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen
from acclimate.adapters.numerics import group_count, group_mean, group_sum, softmax
from acclimate.adapters.objectives.agreement import cross_entropy
from acclimate.adapters.optimisers import Optimiser
from acclimate.adapters.randomness import keys, rank
from acclimate.adapters.requests import Forward, Gradient, Reply, Request
from acclimate.adapters.restoration import FisherPull, Masked
from acclimate.adapters.source import Source

STUDENT = "teacher.student"
VIEW, MASK = 21, 22


@dataclass(frozen=True)
class TaughtStudent:
    """CoTTA's update, and PETAL's with another restoration and a pull.

    Attributes:
        optimiser: of the student, Adam in public CIFAR-10 settings.
        restoration: what puts single parameters of the student back.
        pull: regularisation of the student toward the source, or None.
        inertia: of the teacher, 0.999 in the paper.
        confidence: where the source model's mean confidence is below it, the teacher answers with the mean over
            augmented views; 0.92 on CIFAR-10-C.
        views: how many, 32 in the paper.
        seed: of views and masks.
    """

    optimiser: Optimiser
    restoration: Masked
    pull: FisherPull | None = None
    inertia: float = 0.999
    confidence: float = 0.92
    views: int = 32
    seed: int = 0

    def template(self, source: Source) -> State:
        """The student `[P]` and the optimiser's memory."""
        return {STUDENT: source.theta.copy()} | self.optimiser.template(source.parameters.size)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Ask the anchor, teach, step the student, let the teacher follow, put some of the student back."""
        rows, group, sessions = seen.rows, seen.rows.group, seen.sessions
        target = yield from self._target(source, state, seen)
        learning = replace(rows, theta=state[STUDENT][group])
        outputs = yield from ask_outputs(Forward(learning))
        value = cross_entropy(outputs.logits, softmax(target))
        count = group_count(group, sessions)
        share = (1 / count).astype(np.float32)[group]
        reply = yield from ask_gradients(Gradient(learning, value.cotangent * share[:, np.newaxis]))
        gradient = group_sum(reply.grad_theta, group, sessions)
        if self.pull is not None:
            gradient = gradient + self.pull.gradient(state[STUDENT], source.theta, source.fisher)
        student, memory = self.optimiser.next(state, state[STUDENT], gradient)
        theta = np.float32(self.inertia) * state[THETA] + np.float32(1 - self.inertia) * student
        key = keys(self.seed, MASK, state[STEPS])
        back = self.restoration.apply(student, source.theta, gradient, key)
        return Moved(
            {THETA: theta, STUDENT: back} | memory,
            group_sum(share * value.loss, group, sessions),
            count,
            answers=target,
        )

    def _target(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Float]:
        """The teacher's logits `[B, C]`, averaged over views where the anchor is unsure."""
        rows, sessions = seen.rows, seen.sessions
        outputs = yield from ask_outputs(Forward(replace(rows, theta=np.broadcast_to(source.theta, rows.theta.shape))))
        sure = group_mean(softmax(outputs.logits).max(axis=1), rows.group, sessions) >= self.confidence
        unsure = np.flatnonzero(~sure[rows.group])
        target = seen.logits
        if len(unsure) == 0 or self.views == 0:
            return target
        asked, space = rows.take(unsure), Space.of(source.canary_inputs)
        place = rank(rows.group)[unsure]
        total = np.zeros((len(unsure), target.shape[1]), np.float32)
        for view in range(self.views):
            key = keys(self.seed, VIEW, view, state[STEPS][asked.group], place)
            outputs = yield from ask_outputs(Forward(replace(asked, inputs=strong_view(asked.inputs, key, space))))
            total += outputs.logits
        target = target.copy()
        target[unsure] = total / np.float32(self.views)
        return target
