"""The one driver of every recipe: a transaction over the sessions of a batch, as a machine that asks.

`adaptation_step` is a generator. It yields a request (`Forward`, `Gradient`, `Frozen`), is sent the reply, and
returns a `StepResult`. It holds no engine, reads no clock and writes to none of the arrays it is given.
The order is always: normalise, select, differentiate, move, check, decide.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters import guards as guard
from acclimate.adapters.asking import ask_outputs
from acclimate.adapters.bank import State
from acclimate.adapters.fields import STATS, STEPS, STRIKES, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen, only_where
from acclimate.adapters.numerics import group_count
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.requests import Forward, Frozen, Gradient, Index, Reply, Request, Rows, Serve
from acclimate.adapters.source import Source

Asking = Generator[Request, Reply, "StepResult"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of several sessions.

    Attributes:
        inputs: `[B, ...]`.
        group: `[B]` the session of each, as a row of the state.
        labels: `[B]` true classes that arrived as feedback, -1 where none did; None: none at all.
    """

    inputs: NDArray[Any]
    group: Index
    labels: NDArray[np.int64] | None = None


@dataclass(slots=True)
class Asked:
    """Rows that a step asked for: in float forward passes, in gradient passes, and of the quantized model."""

    forward: int = 0
    backward: int = 0
    quantized: int = 0

    def count(self, request: Request) -> None:
        """Add a request's rows."""
        match request:
            case Forward(rows):
                self.forward += len(rows)
            case Gradient(rows):
                self.backward += len(rows)
            case Frozen(inputs) | Serve(inputs):
                self.quantized += len(inputs)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a step, per session of the batch.

    Attributes:
        state: the state to store: the proposal where it was accepted, the old one plus a strike where not.
        outcome: `[S]` `Outcome` numbers.
        restore: `[S]` sessions that should go back to the source: refused too often, or a reset was due.
        logits: `[B, C]` answers to the batch, as the papers' code returns them: of the first forward pass, before
            the update, normalised with the batch as the recipe blends it; or what the move answers instead; then
            corrected by the recipe's output stage.
        loss: `[S]` mean loss of the selected samples in nats, NaN-free (0 where none).
        selected: `[S]` samples that took part in the gradient.
        distance: `[S]` relative distance of the stored theta from the source.
        asked: rows asked for in all, for the account of costs.
    """

    state: State
    outcome: NDArray[np.int64]
    restore: NDArray[np.bool_]
    logits: Float
    loss: Float
    selected: NDArray[np.int64]
    distance: Float
    asked: Asked


def adaptation_step(recipe: Recipe, source: Source, state: State, batch: Batch) -> Asking:
    """Propose, check, decide, for the sessions in `state [S, ...]` with the samples in `batch`.

    Every session must own at least one row of the batch.
    """
    asked, step = Asked(), _step(recipe, source, state, batch)
    try:
        request = next(step)
        while True:
            asked.count(request)
            request = step.send((yield request))
    except StopIteration as finished:
        result: StepResult = finished.value
        return replace(result, asked=asked)


def _step(recipe: Recipe, source: Source, state: State, batch: Batch) -> Asking:
    groups = len(state[THETA])
    count = group_count(batch.group, groups)
    alpha = recipe.statistics.alpha(count)
    base = recipe.statistics.base(state[STATS], source.stats)
    rows = Rows(batch.inputs, state[THETA][batch.group], base[batch.group], batch.group, alpha[batch.group])
    outputs = yield from ask_outputs(Forward(rows))
    batch_stats = outputs.batch_stats[np.unique(batch.group, return_index=True)[1]]
    stats = recipe.statistics.move(base, batch_stats, alpha)
    labels = np.full(len(rows), -1, np.int64) if batch.labels is None else batch.labels
    seen = Seen(rows, outputs.logits, stats, batch_stats, labels)
    moved = _still(groups) if recipe.move is None else (yield from recipe.move.propose(source, state, seen))
    logits = outputs.logits if moved.answers is None else moved.answers
    corrected, remembered = recipe.outputs.apply(source, state, logits, batch.group)
    proposal = state | {STATS: stats, STEPS: state[STEPS] + 1} | moved.state | remembered
    verdict = yield from _check(recipe, source, proposal, np.isfinite(moved.loss), batch)
    return _decide(recipe, source, state, proposal, moved, verdict, corrected)


def _still(sessions: int) -> Moved:
    """The move of a recipe that has none."""
    return Moved({}, np.zeros(sessions, np.float32), np.zeros(sessions, np.int64))


def _check(
    recipe: Recipe, source: Source, proposal: State, computed: guard.Mask, batch: Batch
) -> Generator[Request, Reply, NDArray[np.int64]]:
    """Outcome of every guard `[S]`. What is checked is the quantized model that would serve the proposal."""
    limits = recipe.guards
    theta, stats = proposal[THETA], proposal[STATS]
    groups = len(theta)
    sound = guard.finite(proposal) & computed
    inside = guard.distance(np.where(sound[:, np.newaxis], theta, 0), source.theta) <= limits.trust_radius
    inside |= ~sound
    healthy = sound & inside
    verdicts = [(Outcome.ROLLED_BACK_NONFINITE, sound), (Outcome.ROLLED_BACK_TRUST_REGION, inside)]
    if healthy.any():
        logits = yield from _served_at(theta, stats, batch.inputs, batch.group, healthy)
        frozen = yield from ask_outputs(Frozen(batch.inputs))
        adapted_spread = guard.spread(logits, batch.group, groups)
        frozen_spread = guard.spread(frozen.logits, batch.group, groups)
        spread_ok = adapted_spread >= limits.collapse_ratio * frozen_spread
        verdicts.append((Outcome.ROLLED_BACK_COLLAPSE, spread_ok | ~healthy))
        canary_ok = yield from _check_canaries(limits, source, proposal, healthy)
        verdicts.append((Outcome.ROLLED_BACK_CANARY, canary_ok))
    return guard.worst(verdicts, groups)


def _check_canaries(
    limits: guard.Guards, source: Source, proposal: State, healthy: guard.Mask
) -> Generator[Request, Reply, guard.Mask]:
    """Whether theta still answers source samples, under source statistics, for sessions whose turn it is."""
    groups, samples = len(healthy), len(source.canary_labels)
    due = np.flatnonzero(healthy & (proposal[STEPS] % max(limits.canary_every, 1) == 0))
    passed = np.ones(groups, np.bool_)
    if limits.canary_every == 0 or samples == 0 or len(due) == 0:
        return passed
    owner = np.repeat(due, samples)
    inputs = np.concatenate([source.canary_inputs] * len(due))
    source_stats = np.repeat(source.stats[np.newaxis], groups, axis=0)
    logits = yield from _served_at(proposal[THETA], source_stats, inputs, owner, healthy)
    frozen = yield from ask_outputs(Frozen(source.canary_inputs))
    baseline = (frozen.logits.argmax(axis=1) == source.canary_labels).mean()
    right = (logits.argmax(axis=1) == np.tile(source.canary_labels, len(due))).reshape(len(due), samples)
    passed[due] = right.mean(axis=1) >= baseline - limits.canary_tolerance
    return passed


def _served_at(
    theta: Float, stats: Float, inputs: NDArray[Any], group: Index, healthy: guard.Mask
) -> Generator[Request, Reply, Float]:
    """Logits `[B, C]` that a proposal would serve; zeros for rows of sessions that are not healthy."""
    asked = np.flatnonzero(healthy[group])
    outputs = yield from ask_outputs(Serve(inputs[asked], theta, stats, group[asked]))
    logits = np.zeros((len(group), outputs.logits.shape[1]), np.float32)
    logits[asked] = outputs.logits
    return logits


def _decide(
    recipe: Recipe,
    source: Source,
    state: State,
    proposal: State,
    moved: Moved,
    verdict: NDArray[np.int64],
    logits: Float,
) -> StepResult:
    """Accept or roll back each session, count strikes, and say who goes back to the source."""
    accepted = verdict == Outcome.APPLIED
    strikes = np.where(accepted, 0, state[STRIKES] + 1)
    kept = only_where(accepted, {name: proposal[name] for name in state}, state)
    kept |= {STRIKES: strikes, STEPS: proposal[STEPS]}
    restore = strikes >= recipe.guards.max_strikes
    for reset in recipe.resets:
        restore = restore | reset.due(kept)
    idle = accepted & (moved.selected == 0) & (recipe.move is not None)
    return StepResult(
        state=kept,
        outcome=np.where(idle, Outcome.SKIPPED_NOT_SELECTED, verdict),
        restore=restore,
        logits=logits,
        loss=moved.loss,
        selected=moved.selected,
        distance=guard.distance(kept[THETA], source.theta),
        asked=Asked(),
    )
