"""When a session looks at its stream at all: often while a domain is new, seldom once it is known.

A step costs many times what answering its samples cost. Between steps a session rests, and all that is looked at are
a sketch of its inputs (`sketch.py`) and the entropy of the answers that they were given anyway: where one of these
leaves the level it has had since the last step, the stream has changed and the session wakes. A move that finds a new
domain says so by setting `AGE` to the samples that it has of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import only_where
from acclimate.adapters.numerics import entropy, group_count, group_mean, softmax
from acclimate.adapters.randomness import rank
from acclimate.adapters.requests import Index
from acclimate.adapters.sketch import SIZE, sketch

SINCE = "pace.since"
"""`[S]` float32: samples since the last gradient; 0 tells the step that takes one."""
AGE = "pace.age"
"""`[S]` float32: samples since the domain was found to be new."""
DUE = "pace.due"
"""`[S]` float32: the age at which the next step is taken."""
USUAL = "pace.usual"
"""`[S]` float32: by how many standard errors recent batches differed from their level."""
RESTLESS = "pace.restless"
"""`[S]` float32: the same over twenty batches. Below 1.8 where samples are independent and domains last for long;
about 2 to 3 where labels come in runs, or domains change every few batches."""
ALIKE = "pace.alike"
"""`[S]` float32: chance that two samples of a batch are answered alike, over twenty batches."""
APART = "pace.apart"
"""`[S]` float32: the same for a sample of a batch and one of the batches before."""
OFTEN = "pace.often"
"""`[S, C]` float32: how often each class was answered, over twenty batches."""
SURPRISED = "pace.surprised"
"""`[S]` bool: whether the latest batch was unlike those before it."""
LEVEL = "pace.level"
VARIANCE = "pace.variance"
KNOWN = "pace.known"


# Errors by which batches of independent samples differ in the most unlike of eight numbers, at most times; and how
# many times more they may differ before only a change of the stream explains it.
_IID, _RUNS = 2.0, 4.0
# What a change of the stream counts for at most in an average over batches that is to tell how they usually differ.
_MOST = 6.0
# A stream is taken for one of runs until it shows what it is: a domain that is found late costs little.
_UNKNOWN = {RESTLESS: 2.0, ALIKE: 0.3, APART: 0.2}
# What one batch moves these averages by.
_GAIN = 0.05


@dataclass(frozen=True, slots=True)
class Paced:
    """Which sessions `[S]` step, which would have but cannot pay, and the fields of the state after these samples.

    `lost` are those of the latter whose stream has changed: what they learnt is of another one.
    """

    awake: NDArray[np.bool_]
    denied: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    state: State


@dataclass(frozen=True, slots=True)
class Pace:
    """Steps at every batch of a new domain, then at ages that grow geometrically.

    Attributes:
        eager: samples of a domain through which every batch is a step.
        growth: afterwards a step is due when the domain has grown by this share since the last one.
        longest: samples between two steps, at most.
        every: samples for each of which a gradient is taken, once a domain is known.
        surprise: standard errors by which the mean of a batch may differ from its level. Where labels come in runs,
            batches differ by more than their standard errors: then as many times as usual, up to four times as many.
        look: samples of a session's batch that a step looks at, at most: a step's cost grows with them, what it finds
            with their root.
        least: by how much it has to differ besides, in nats of entropy or as a share of what is sketched: frames of
            one scene differ so little that a standard error is nothing.
    """

    eager: float
    growth: float
    longest: float
    every: float
    surprise: float
    look: int
    least: float = 0.1

    def template(self, classes: int) -> State:
        """Nothing known, a step due at once; levels and variances `[8]` are of the entropy and the sketch."""
        own: State = {name: np.zeros((), np.float32) for name in (AGE, DUE, SINCE, KNOWN, USUAL)}
        own |= {name: np.full((), value, np.float32) for name, value in _UNKNOWN.items()}
        own[OFTEN] = np.full(classes, 1 / classes, np.float32)
        own[SURPRISED] = np.zeros((), np.bool_)
        return own | {name: np.zeros(1 + SIZE, np.float32) for name in (LEVEL, VARIANCE)}

    def choose(
        self, state: State, inputs: NDArray[Any], answers: Float, group: Index, may: NDArray[np.bool_] | None = None
    ) -> Paced:
        """Who steps of those that `may [S]`, after `answers [B, C]` to `inputs [B, ...]` of sessions `group [B]`."""
        sessions = len(state[AGE])
        rows = group_count(group, sessions).astype(np.float32)
        seen = np.concatenate([entropy(answers)[:, np.newaxis], sketch(inputs)], axis=1)
        level = group_mean(seen, group, sessions)
        variance = group_mean((seen - level[group]) ** 2, group, sessions)
        # A batch with a NaN in it is for the guards of a step to refuse; remembered, it would stay for ever.
        broken = ~np.isfinite(level + variance).all(axis=1)
        level = np.where(broken[:, np.newaxis], state[LEVEL], level)
        variance = np.where(broken[:, np.newaxis], state[VARIANCE], variance)
        known = state[KNOWN]
        off = np.abs(level - state[LEVEL])
        error = np.sqrt(_per(variance, rows) + _per(state[VARIANCE], known))
        errors = np.where(off > self.least, off / np.maximum(error, np.float32(1e-6)), 0).max(axis=1) * (known > 0)
        usual = state[USUAL]
        surprised = errors > self.surprise * np.clip(usual / _IID, 1, _RUNS)
        age = state[AGE] + rows
        since = state[SINCE] + rows
        wanted = surprised | broken | (age >= state[DUE]) | (since >= self.every)
        awake = wanted if may is None else wanted & may
        # After a step other parameters answer, so what was known of their answers' entropy counts no more.
        known = np.where(awake, 0, known)
        gain = (rows / np.maximum(known + rows, 1))[:, np.newaxis]
        fields = {
            AGE: age,
            SINCE: np.where(awake & ((age <= self.eager) | (since >= self.every)), 0, since),
            DUE: np.where(awake, self._next(age), state[DUE]),
            LEVEL: state[LEVEL] + gain * (level - state[LEVEL]),
            VARIANCE: state[VARIANCE] + gain * (variance - state[VARIANCE]),
            KNOWN: known + rows,
            USUAL: usual + 0.2 * (np.minimum(errors, _IID * _RUNS) - usual),
            RESTLESS: state[RESTLESS] + _GAIN * (np.minimum(errors, _MOST) - state[RESTLESS]),
        }
        fields |= _agreement(state, answers, group, rows)
        denied, state = wanted & ~awake, {name: value.astype(np.float32) for name, value in fields.items()}
        return Paced(awake, denied, denied & surprised, state | {SURPRISED: surprised})

    def looks_at(self, group: Index) -> NDArray[np.bool_]:
        """Which samples `[B]` a step of their session looks at: evenly spaced ones."""
        every = -(-np.bincount(group) // self.look)
        result: NDArray[np.bool_] = rank(group) % np.maximum(every, 1)[group] == 0
        return result

    def _next(self, age: Float) -> Float:
        """The age at which a session that steps now is due again."""
        gap = np.where(age < self.eager, 0, np.minimum(self.growth * age, self.longest))
        result: Float = (age + gap).astype(np.float32)
        return result

    def begun(self, rows: Float) -> State:
        """The fields of sessions whose domain began with these `rows [S]`."""
        new = rows <= self.eager
        return {AGE: rows.astype(np.float32), DUE: self._next(rows), SINCE: np.where(new, 0, rows).astype(np.float32)}


def runs(state: State) -> Float:
    """How far `[S]` labels come in runs: by how much samples of one batch agree beyond those of different batches.

    Cohen's kappa of their answers: 0 where samples are independent, 1 where each batch is of one class.
    """
    result: Float = (state[ALIKE] - state[APART]) / np.maximum(1 - state[APART], np.float32(1e-6))
    return result


def _agreement(state: State, answers: Float, group: Index, rows: Float) -> State:
    """The averages that `runs` compares, with these answers `[B, C]` in them; a batch with a NaN in it is left out."""
    probability = softmax(answers)
    mean = group_mean(probability, group, len(rows))
    own = group_mean((probability**2).sum(axis=1), group, len(rows))
    alike = ((mean**2).sum(axis=1) * rows - own) / np.maximum(rows - 1, 1)
    apart = (mean * state[OFTEN]).sum(axis=1)
    seen = {ALIKE: alike, APART: apart, OFTEN: mean}
    moved = {name: state[name] + np.float32(_GAIN) * (value - state[name]) for name, value in seen.items()}
    return only_where((rows > 1) & np.isfinite(alike), moved, state)


def _per(variance: Float, rows: Float) -> Float:
    result: Float = (variance / np.maximum(rows, 1)[:, np.newaxis]).astype(np.float32)
    return result
