"""`auto`'s move: how far to trust the stream's statistics, chosen without labels, and a careful descent there.

Normalising with a shifted stream's own statistics repairs heavy corruptions, but on mild ones it gives away what
the source's statistics knew. Somewhere between the two lies the best blend, and where it lies depends on the shift.
Each step asks the quantized model what it would answer at several blends and takes the one whose answers hold the
most information about the input, `I = H(mean p) - mean H(p)`: sure answers, spread over the classes (Bridle et al.
1991). A collapsed model is sure too, but of one class, so entropy alone would choose it.

The stream's statistics are averaged over as many samples as the present domain has shown; when a batch lies much
farther from that average than batches usually do, the domain has changed and the average starts over.

Gradients are spent where they pay: at every step while a domain is new, at every so many once it has been seen for
long and nothing drifts, so that a budget of adaptation time has something left when the stream changes again.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.asking import ask_outputs
from acclimate.adapters.bank import State
from acclimate.adapters.fields import STATS, STEPS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen, among
from acclimate.adapters.moves.descent import Descent
from acclimate.adapters.numerics import entropy, group_count, group_mean, softmax
from acclimate.adapters.requests import Index, Reply, Request, Serve
from acclimate.adapters.source import Source
from acclimate.adapters.watch import REASON, Drift

DOMAIN = "auto.domain"
COUNT = "auto.count"
USUAL = "auto.usual_distance"
AGE = "auto.age"
ENTROPY = "auto.entropy"
MARGINAL = "auto.marginal"
CHOICE = "auto.choice"


@dataclass(frozen=True)
class Shrinking:
    """Blend, choose, descend.

    Attributes:
        descent: how theta moves. It sees the batch normalised with itself, so that what theta learns does not depend
            on the blend: descending at the blend's own statistics was 2.5 points worse (`docs/benchmarks.md`).
        blends: shares of the stream's statistics against the source's that are tried.
        memory: samples that the average of a domain is worth at most.
        surprise: a batch this many times farther from the average than usual starts a new domain.
        patience: share of the evidence for each blend that a step keeps.
        settle: samples of a domain, without drift, after which the descent rests.
        rest: a resting session descends at each `rest`-th step; its statistics follow at all of them.
    """

    descent: Descent
    blends: tuple[float, ...] = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0)
    memory: float = 512.0
    surprise: float = 2.0
    patience: float = 0.7
    settle: float = 16384.0
    rest: int = 4

    def template(self, source: Source) -> State:
        """The domain's statistics, the evidence for each blend, and what filter and optimiser remember."""
        tried = len(self.blends)
        own: State = {
            DOMAIN: source.stats.copy(),
            COUNT: np.zeros((), np.float32),
            USUAL: np.zeros((), np.float32),
            AGE: np.zeros((), np.float32),
            ENTROPY: np.zeros(tried, np.float32),
            MARGINAL: np.zeros((tried, source.classes), np.float32),
            CHOICE: np.zeros((), np.int64),
        }
        return own | self.descent.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Follow the domain, choose the blend, and descend at its statistics."""
        followed, changed = self._follow(source, state, seen)
        evidence, logits = yield from self._try_blends(source, state, seen, followed[DOMAIN], changed)
        share = np.array(self.blends, np.float32)[evidence[CHOICE]][:, np.newaxis]
        stats = (source.stats + share * (followed[DOMAIN] - source.stats)).astype(np.float32)
        resting = (followed[AGE] >= self.settle) & (state[STEPS] % self.rest != 0)
        moved = yield from self._descend(source, state, seen, np.flatnonzero(~resting))
        return Moved(
            moved.state | followed | evidence | {STATS: stats},
            moved.loss,
            moved.selected,
            answers=logits,
            gradient=moved.gradient,
        )

    def _descend(self, source: Source, state: State, seen: Seen, awake: Index) -> Generator[Request, Reply, Moved]:
        """The descent of the sessions at these places; the others ask for nothing."""
        if len(awake) == seen.sessions:
            return (yield from self.descent.propose(source, state, seen))
        loss, selected = np.zeros(seen.sessions, np.float32), np.zeros(seen.sessions, np.int64)
        gradient = np.zeros_like(state[THETA])
        if len(awake) == 0:
            return Moved({}, loss, selected, gradient=gradient)
        part = {name: value[awake] for name, value in state.items()}
        moved = yield from self.descent.propose(source, part, among(seen, awake))
        loss[awake], selected[awake] = moved.loss, moved.selected
        gradient[awake] = moved.gradient
        fields = {name: state[name].copy() for name in moved.state}
        for name, value in moved.state.items():
            fields[name][awake] = value
        return Moved(fields, loss, selected, gradient=gradient)

    def _follow(self, source: Source, state: State, seen: Seen) -> tuple[State, NDArray[np.bool_]]:
        """The domain's statistics after this batch, and which sessions `[S]` are in a new domain."""
        rows = group_count(seen.rows.group, seen.sessions).astype(np.float32)
        count, usual = state[COUNT], state[USUAL]
        distance = _distance(source, seen.batch_stats, state[DOMAIN])
        changed = (count == 0) | ((usual > 0) & (distance > self.surprise * usual))
        known = np.where(changed, 0, np.minimum(count, self.memory))
        gain = (rows / (rows + known))[:, np.newaxis].astype(np.float32)
        domain = state[DOMAIN] + gain * (seen.batch_stats - state[DOMAIN])
        drifted = state[REASON] != Drift.NONE if REASON in state else False
        steady = np.where(usual > 0, 0.8 * usual + 0.2 * distance, distance)
        return {
            DOMAIN: domain.astype(np.float32),
            COUNT: (known + rows).astype(np.float32),
            AGE: (np.where(changed | drifted, 0, state[AGE]) + rows).astype(np.float32),
            # The first distance within a domain is measured from a single batch, so it is not usual yet.
            USUAL: np.where(changed, usual, steady).astype(np.float32),
        }, changed

    def _try_blends(
        self, source: Source, state: State, seen: Seen, domain: Float, changed: NDArray[np.bool_]
    ) -> Generator[Request, Reply, tuple[State, Float]]:
        """Evidence for every blend with this batch in it, the best blend, and the answers `[B, C]` it gives."""
        group, sessions = seen.rows.group, seen.sessions
        answers, mean_entropy, marginal = [], [], []
        for share in self.blends:
            stats = source.stats + np.float32(share) * (domain - source.stats)
            outputs = yield from ask_outputs(Serve(seen.rows.inputs, state[THETA], stats, group))
            answers.append(outputs.logits)
            mean_entropy.append(group_mean(entropy(outputs.logits), group, sessions))
            marginal.append(group_mean(softmax(outputs.logits), group, sessions))
        keep = np.where(changed, 0.0, self.patience).astype(np.float32)
        ent = _mixed(state[ENTROPY], np.stack(mean_entropy, axis=1), keep[:, np.newaxis])
        mar = _mixed(state[MARGINAL], np.stack(marginal, axis=1), keep[:, np.newaxis, np.newaxis])
        information = -(mar * np.log(np.maximum(mar, np.float32(1e-12)))).sum(axis=2) - ent
        choice = information.argmax(axis=1)
        logits = np.stack(answers)[choice[group], np.arange(len(group))]
        return {ENTROPY: ent, MARGINAL: mar, CHOICE: choice.astype(np.int64)}, logits


def _mixed(old: Float, new: Float, keep: Float) -> Float:
    return (keep * old + (1 - keep) * new).astype(np.float32)


def _distance(source: Source, batch: Float, domain: Float) -> Float:
    """How far `[S]` two sets of statistics lie apart: squared shift of means in variances, and of log variances.

    0 for models without running statistics.
    """
    mean, var = source.statistics.columns("norm.mean"), source.statistics.columns("norm.var")
    if len(mean) == 0:
        return np.zeros(len(batch), np.float32)
    floor = np.float32(1e-5)
    shift = (batch[:, mean] - domain[:, mean]) ** 2 / (domain[:, var] + floor)
    ratio = np.log((batch[:, var] + floor) / (domain[:, var] + floor)) ** 2
    result: Float = shift.mean(axis=1) + ratio.mean(axis=1)
    return result
