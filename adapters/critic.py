"""How far a session's own answers can be trusted as labels, learnt from the few true labels that arrive.

The E-step of TEMPO (arXiv 2604.19295), carried from rewards to pseudo-labels: a critic that is only ever fitted to
true labels, so that a model that learns from its own answers cannot talk it into trusting them more. Here it is three
small things: a temperature that calibrates confidence (Guo et al. 2017), the entropy margin that separates right from
wrong answers best, and the precision of each answered class. Without labels they stay where they start, and when labels
stop they go back there: a stream that nobody labels any more may have become another one.

Remembered are the answers as they were when their labels were not yet learnt from: fitted to what the model answers
to samples that it has learnt since, the critic would trust it too much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import entropy, group_count, log_softmax
from acclimate.adapters.randomness import rank
from acclimate.adapters.requests import Index

LOGITS = "critic.logits"
LABEL = "critic.label"
NEXT = "critic.next"
SINCE = "critic.since"
RATE = "critic.rate"
TEMPERATURE = "critic.temperature"
MARGIN = "critic.margin"
RELIABILITY = "critic.reliability"
NONE = -1
TEMPERATURES = np.exp(np.linspace(math.log(0.5), math.log(4.0), 31)).astype(np.float32)
RATE_STEPS = 16
"""Steps over which labels are counted."""
MARGIN_SHARES = np.linspace(0.05, 0.95, 37)


@dataclass(frozen=True, slots=True)
class Critic:
    """Constants of the calibration; none is published, for none of this is.

    Attributes:
        margin: entropy margin in nats before any label, EATA's 0.4 ln C.
        capacity: labelled answers remembered, the latest.
        least: labelled answers before anything is fitted.
        patience: steps without a label after which everything is forgotten.
        caution: right answers that it takes to make up for a wrong one, when the margin is chosen.
        doubt: right answers that each class is credited with before any label.
        stiffness: nats that the log-likelihood must gain to move the temperature off 1 by a factor e.
    """

    margin: float
    capacity: int = 64
    least: int = 8
    patience: int = 64
    caution: float = 2.0
    doubt: float = 2.0
    stiffness: float = 4.0

    def template(self, classes: int) -> State:
        """Remembered logits `[K, C]` and labels `[K]` (-1: none), when and how often they came, and what was fitted."""
        return {
            LOGITS: np.zeros((self.capacity, classes), np.float32),
            LABEL: np.full(self.capacity, NONE, np.int64),
            NEXT: np.zeros((), np.int64),
            SINCE: np.zeros((), np.int64),
            RATE: np.zeros((), np.float32),
            TEMPERATURE: np.ones((), np.float32),
            MARGIN: np.array(self.margin, np.float32),
            RELIABILITY: np.ones(classes, np.float32),
        }

    def remember(self, state: State, logits: Float, labels: NDArray[np.int64], group: Index) -> State:
        """The memory after the labelled rows `[B]`, each session's in their order, the oldest overwritten."""
        rows = np.flatnonzero(labels >= 0)
        owner, sessions = group[rows], len(state[NEXT])
        count, place = group_count(owner, sessions), rank(owner)
        slot = (state[NEXT][owner] + place) % self.capacity
        fits = place >= count[owner] - self.capacity
        since = np.where(count > 0, 0, state[SINCE] + 1)
        memory = state[LOGITS].copy()
        known = np.where(since[:, np.newaxis] > self.patience, NONE, state[LABEL])
        memory[owner[fits], slot[fits]] = logits[rows[fits]]
        known[owner[fits], slot[fits]] = labels[rows[fits]]
        rate = (state[RATE] + (count - state[RATE]) / RATE_STEPS).astype(np.float32)
        at = (state[NEXT] + count) % self.capacity
        return {LOGITS: memory, LABEL: known, NEXT: at, SINCE: since, RATE: rate}

    def speaks(self, state: State) -> NDArray[np.bool_]:
        """Whether it remembers enough labels, of each session `[S]`."""
        result: NDArray[np.bool_] = (state[LABEL] != NONE).sum(axis=1) >= self.least
        return result

    def recalibrate(self, state: State, due: NDArray[np.bool_]) -> State:
        """Temperature, margin and reliabilities fitted to the memory, in the sessions `[S]` where due.

        Where nothing is remembered they are as they were before any label.
        """
        known, start = state[LABEL] != NONE, self.template(state[RELIABILITY].shape[1])
        fields = {name: state[name].copy() for name in (TEMPERATURE, MARGIN, RELIABILITY)}
        for name, value in fields.items():
            value[~known.any(axis=1)] = start[name]
        rows = np.flatnonzero(due & self.speaks(state))
        if len(rows) == 0:
            return fields
        logits, label, known = state[LOGITS][rows], state[LABEL][rows], known[rows]
        fields[TEMPERATURE][rows] = temperature = self._temperature(logits, label, known)
        right = known & (logits.argmax(axis=2) == label)
        doubt = entropy((logits / temperature[:, np.newaxis, np.newaxis]).astype(np.float32))
        fields[MARGIN][rows] = self._margin(doubt, right, known & ~right, logits.shape[2])
        fields[RELIABILITY][rows] = self._reliability(logits.argmax(axis=2), right, known, logits.shape[2])
        return fields

    def _temperature(self, logits: Float, label: NDArray[np.int64], known: NDArray[np.bool_]) -> Float:
        """The temperature `[S]` of least negative log-likelihood, held near 1 by few labels."""
        loss = np.empty((len(logits), len(TEMPERATURES)))
        at = np.maximum(label, 0)[:, :, np.newaxis]
        for number, temperature in enumerate(TEMPERATURES):
            surprise = -np.take_along_axis(log_softmax(logits / temperature), at, axis=2)[:, :, 0]
            loss[:, number] = np.where(known, surprise, 0).sum(axis=1)
        loss += self.stiffness * np.log(TEMPERATURES) ** 2
        result: Float = TEMPERATURES[loss.argmin(axis=1)]
        return result

    def _margin(
        self, doubt: Float, right: NDArray[np.bool_], wrong: NDArray[np.bool_], classes: int
    ) -> NDArray[np.float64]:
        """The margin `[S]` with the most right answers below it, less `caution` for each wrong one."""
        margins = MARGIN_SHARES * math.log(classes)
        below = doubt[:, :, np.newaxis] < margins
        worth = (below & right[:, :, np.newaxis]).sum(axis=1)
        worth = worth - self.caution * (below & wrong[:, :, np.newaxis]).sum(axis=1)
        # Margins that labels do not tell apart are told apart by how near the first margin they are.
        worth = worth - 0.5 * np.abs(margins / self.margin - 1) / np.abs(margins / self.margin - 1).max()
        result: NDArray[np.float64] = margins[worth.argmax(axis=1)]
        return result

    def _reliability(
        self, answer: NDArray[np.intp], right: NDArray[np.bool_], known: NDArray[np.bool_], classes: int
    ) -> Float:
        """Precision of each answered class `[S, C]`, as a share of the way from guessing to certainty."""
        each = answer[:, :, np.newaxis] == np.arange(classes)
        count, correct = (each & known[:, :, np.newaxis]).sum(axis=1), (each & right[:, :, np.newaxis]).sum(axis=1)
        precision = (correct + self.doubt) / (count + self.doubt)
        result: Float = np.clip((precision - 1 / classes) / (1 - 1 / classes), 0, 1).astype(np.float32)
        return result
