"""`auto`'s move: how far to trust the stream's statistics, chosen without labels, and a careful descent there.

Normalising with a shifted stream's own statistics repairs heavy corruptions, but on mild ones it gives away what
the source's statistics knew. Somewhere between the two lies the best blend, and where it lies depends on the shift.
Each step asks the quantized model what it would answer at several blends and takes the one whose answers hold the
most information about the input, `I = H(mean p) - mean H(p)`: sure answers, spread over the classes (Bridle et al.
1991). A collapsed model is sure too, but of one class, so entropy alone would choose it.

The stream's statistics are averaged over as many samples as the present domain has shown; when a batch lies much
farther from that average than batches usually do, the domain has changed and the average starts over. Where labels
come in runs, a new class moves a batch as far as a new domain does elsewhere, and an average that started over at each
would know one class only: there, the more restless a stream is, the farther a batch has to lie.

While a domain lasts, the present blend and its neighbours in turn are tried; a new one is tried at all of them.
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
from acclimate.adapters.moves.base import Moved, Seen, among, only_where
from acclimate.adapters.moves.descent import Descent
from acclimate.adapters.numerics import entropy, group_count, group_mean, softmax
from acclimate.adapters.pacing import RESTLESS, SINCE, SURPRISED, Pace, runs
from acclimate.adapters.randomness import rank
from acclimate.adapters.requests import Index, Reply, Request, Serve
from acclimate.adapters.source import Source
from acclimate.adapters.watch import REASON, Drift

DOMAIN = "auto.domain"
COUNT = "auto.count"
USUAL = "auto.usual_distance"
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
        surprise: a batch this many times farther from the average than usual starts a new domain,
        calm: and where labels come in runs, the cube of as many times more as a stream is more restless than this.
        runs: agreement of a batch's answers beyond which labels come in runs; see `pacing.runs`.
        patience: share of the evidence for each blend that a step keeps.
        tie: nats of information that a larger share must win by: they are a noisy estimate, and where the source's
            statistics do as well they also fit what the session was made for.
        pace: when the session steps, which a new domain sets back.
        judged: samples of a session's batch that blends are tried on, at most.
    """

    descent: Descent
    pace: Pace
    blends: tuple[float, ...] = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0)
    memory: float = 512.0
    surprise: float = 2.0
    calm: float = 1.6
    runs: float = 0.08
    patience: float = 0.7
    judged: int = 32
    tie: float = 0.03

    def template(self, source: Source) -> State:
        """The domain's statistics, the evidence for each blend, and what filter and optimiser remember."""
        tried = len(self.blends)
        own: State = {
            DOMAIN: source.stats.copy(),
            COUNT: np.zeros((), np.float32),
            USUAL: np.zeros((), np.float32),
            ENTROPY: np.zeros(tried, np.float32),
            MARGINAL: np.zeros((tried, source.classes), np.float32),
            CHOICE: np.zeros((), np.int64),
        }
        return own | self.descent.template(source)

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Follow the domain, choose the blend, and descend at its statistics."""
        followed, changed = self._follow(source, state, seen)
        evidence, logits = yield from self._try_blends(source, state, seen, followed[DOMAIN], changed)
        stats = _blended(source, followed[DOMAIN], self._shares(evidence[CHOICE]))
        moved = yield from self._descend(source, state, seen, np.flatnonzero(followed[SINCE] == 0))
        return Moved(
            moved.state | followed | evidence | {STATS: stats},
            moved.loss,
            moved.selected,
            answers=logits,
            gradient=moved.gradient,
        )

    def _descend(self, source: Source, state: State, seen: Seen, steep: Index) -> Generator[Request, Reply, Moved]:
        """The descent of the sessions at these places; the others ask for nothing."""
        if len(steep) == seen.sessions:
            return (yield from self.descent.propose(source, state, seen))
        loss, selected = np.zeros(seen.sessions, np.float32), np.zeros(seen.sessions, np.int64)
        gradient = np.zeros_like(state[THETA])
        if len(steep) == 0:
            return Moved({}, loss, selected, gradient=gradient)
        part = {name: value[steep] for name, value in state.items()}
        moved = yield from self.descent.propose(source, part, among(seen, steep))
        loss[steep], selected[steep] = moved.loss, moved.selected
        gradient[steep] = moved.gradient
        fields = {name: state[name].copy() for name in moved.state}
        for name, value in moved.state.items():
            fields[name][steep] = value
        return Moved(fields, loss, selected, gradient=gradient)

    def _follow(self, source: Source, state: State, seen: Seen) -> tuple[State, NDArray[np.bool_]]:
        """The domain's statistics after this batch, and which sessions `[S]` are in a new domain."""
        rows = group_count(seen.rows.group, seen.sessions).astype(np.float32)
        count, usual = state[COUNT], state[USUAL]
        held = np.clip(count, 1, self.memory)
        # Two averages of one domain lie apart by their errors, which fall with the samples of each.
        distance = _distance(source, seen.batch_stats, state[DOMAIN]) / (1 / rows + 1 / held)
        restless = np.where(runs(state) > self.runs, np.maximum(state[RESTLESS] / self.calm, 1), 1)
        surprise = self.surprise * restless**3
        # What is usual in a domain shows at its second batch; if that looks otherwise, it is of yet another domain.
        changed = (count == 0) | np.where(usual > 0, distance > surprise * usual, state[SURPRISED])
        known = np.where(changed, 0, np.minimum(count, self.memory))
        gain = (rows / (rows + known))[:, np.newaxis].astype(np.float32)
        domain = state[DOMAIN] + gain * (seen.batch_stats - state[DOMAIN])
        drifted = state[REASON] != Drift.NONE if REASON in state else False
        steady = np.where(usual > 0, 0.8 * usual + 0.2 * distance, distance)
        anew = only_where(changed | drifted, self.pace.begun(rows), state)
        # Not to lose the gradient that was due in any case.
        anew[SINCE] = np.minimum(anew[SINCE], state[SINCE])
        return anew | {
            DOMAIN: domain.astype(np.float32),
            # The first batch of a domain may still hold the end of the one before.
            COUNT: np.where(changed, rows / 4, known + rows).astype(np.float32),
            # Of a new domain nothing is usual yet.
            USUAL: np.where(changed, 0, steady).astype(np.float32),
        }, changed

    def _try_blends(
        self, source: Source, state: State, seen: Seen, domain: Float, changed: NDArray[np.bool_]
    ) -> Generator[Request, Reply, tuple[State, Float]]:
        """Evidence for every blend with this batch in it, the best blend, and the answers `[B, C]` it gives."""
        group, rows = seen.rows.group, len(seen.rows)
        judged = rank(group) < self.judged
        # The present blend, and the one above or below it in turn.
        side = state[CHOICE] + np.where(state[STEPS] % 2 == 0, 1, -1)
        places = np.arange(len(self.blends))
        near = (places == state[CHOICE][:, np.newaxis]) | (places == side[:, np.newaxis])
        tried = near | changed[:, np.newaxis]
        keep = np.where(changed, 0.0, self.patience).astype(np.float32)
        evidence = {ENTROPY: state[ENTROPY].copy(), MARGINAL: state[MARGINAL].copy()}
        answers = np.zeros((len(self.blends), rows, source.classes), np.float32)
        for place in places.tolist():
            asked = np.flatnonzero(tried[group, place] & judged)
            if len(asked):
                answers[place, asked] = yield from self._at(source, state, seen, domain, self._shares(place), asked)
                self._weigh(evidence, place, answers[place, asked], group[asked], tried[:, place], keep)
        marginal = evidence[MARGINAL]
        spread = -(marginal * np.log(np.maximum(marginal, np.float32(1e-12)))).sum(axis=2)
        information = np.where(tried, spread - evidence[ENTROPY], -np.inf)
        # The first of those that are as good as the best.
        choice = (information >= information.max(axis=1, keepdims=True) - self.tie).argmax(axis=1)
        logits = answers[choice[group], np.arange(rows)]
        rest = np.flatnonzero(~judged)
        if seen.answering and len(rest):
            logits[rest] = yield from self._at(source, state, seen, domain, self._shares(choice), rest)
        return evidence | {CHOICE: choice.astype(np.int64)}, logits

    def _shares(self, choice: int | NDArray[np.int64]) -> Float:
        """Shares `[S, 1]`, or `[1, 1]` for all alike, of these choices."""
        return np.atleast_1d(np.array(self.blends, np.float32)[choice])[:, np.newaxis]

    def _at(
        self, source: Source, state: State, seen: Seen, domain: Float, share: Float, asked: Index
    ) -> Generator[Request, Reply, Float]:
        """Answers `[b, C]` of the quantized model to the rows `asked [b]`, at a share of the domain's statistics."""
        rows, stats = seen.rows, _blended(source, domain, share)
        outputs = yield from ask_outputs(Serve(rows.inputs[asked], state[THETA], stats, rows.group[asked]))
        return outputs.logits

    def _weigh(
        self, evidence: State, place: int, logits: Float, group: Index, tried: NDArray[np.bool_], keep: Float
    ) -> None:
        """Add the answers `[b, C]` at one blend to the evidence for it, in the sessions where it was tried."""
        sessions = len(tried)
        new_entropy = group_mean(entropy(logits), group, sessions)
        new_marginal = group_mean(softmax(logits), group, sessions)
        old_entropy, old_marginal = evidence[ENTROPY][:, place], evidence[MARGINAL][:, place]
        evidence[ENTROPY][:, place] = np.where(tried, _mixed(old_entropy, new_entropy, keep), old_entropy)
        mixed = _mixed(old_marginal, new_marginal, keep[:, np.newaxis])
        evidence[MARGINAL][:, place] = np.where(tried[:, np.newaxis], mixed, old_marginal)


def _blended(source: Source, domain: Float, share: Float) -> Float:
    """Statistics `[S, Q]` at these shares `[S, 1]` of the domain's against the source's."""
    return (source.stats + share * (domain - source.stats)).astype(np.float32)


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
