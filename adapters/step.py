"""The one driver of every recipe: a transaction over the sessions of a batch, as a machine that asks.

`adaptation_step` is a generator. It yields a request (`Forward`, `Gradient`, `Frozen`), is sent the reply, and
returns a `StepResult`. It holds no engine, reads no clock and writes to none of the arrays it is given.
The order is always: normalise, select, differentiate, move, check, decide.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters import guards as guard
from acclimate.adapters.asking import ask_gradients, ask_outputs
from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import group_count, group_sum
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.recipes.base import STATS, STEPS, STRIKES, THETA, Recipe
from acclimate.adapters.requests import Forward, Frozen, Gradient, Index, Reply, Request, Rows
from acclimate.adapters.source import Source

Asking = Generator[Request, Reply, "StepResult"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of several sessions: inputs `[B, ...]` and the session `[B]` of each, as a row of the state."""

    inputs: NDArray[Any]
    group: Index


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a step, per session of the batch.

    Attributes:
        state: the state to store: the proposal where it was accepted, the old one plus a strike where not.
        outcome: `[S]` `Outcome` numbers.
        restore: `[S]` sessions refused so often that they should go back to the source.
        loss: `[S]` mean loss of the selected samples in nats, NaN-free (0 where none).
        selected: `[S]` samples that took part in the gradient.
        distance: `[S]` relative distance of the stored theta from the source.
        forward_rows, backward_rows: rows asked for in all, for the account of costs.
    """

    state: State
    outcome: NDArray[np.int64]
    restore: NDArray[np.bool_]
    loss: Float
    selected: NDArray[np.int64]
    distance: Float
    forward_rows: int
    backward_rows: int


@dataclass(frozen=True, slots=True)
class _Moved:
    """A proposal before the guards: new fields, loss and selected samples per session, backward rows."""

    state: State
    loss: Float
    selected: NDArray[np.int64]
    backward_rows: int


def adaptation_step(recipe: Recipe, source: Source, state: State, batch: Batch) -> Asking:
    """Propose, check, decide, for the sessions in `state [S, ...]` with the samples in `batch`.

    Every session must own at least one row of the batch.
    """
    groups = len(state[THETA])
    count = group_count(batch.group, groups)
    alpha = recipe.statistics.alpha(count)
    rows = Rows(batch.inputs, state[THETA][batch.group], state[STATS][batch.group], batch.group, alpha[batch.group])
    outputs = yield from ask_outputs(Forward(rows))
    one_row_each = np.unique(batch.group, return_index=True)[1]
    stats = recipe.statistics.move(state[STATS], outputs.batch_stats[one_row_each], alpha)
    moved = yield from _move(recipe, source, state, rows, outputs.logits, stats)
    proposal = state | moved.state | {STATS: stats, STEPS: state[STEPS] + 1}
    verdict, checked_rows = yield from _check(recipe, source, proposal, batch)
    return _decide(recipe, source, state, proposal, moved, verdict, len(rows) + checked_rows)


def _move(
    recipe: Recipe, source: Source, state: State, rows: Rows, logits: Float, stats: Float
) -> Generator[Request, Reply, _Moved]:
    """Select samples, ask for their gradient, and let the optimiser move theta."""
    groups = len(stats)
    zero = np.zeros(groups, np.float32)
    if recipe.objective is None or recipe.optimiser is None:
        return _Moved({}, zero, np.zeros(groups, np.int64), 0)
    value = recipe.objective(logits)
    chosen = recipe.selection.select(state, logits, value.loss, rows.group)
    keep = np.flatnonzero(chosen.weight > 0)
    selected = group_count(rows.group[keep], groups)
    if len(keep) == 0:
        return _Moved(chosen.state, zero, selected, 0)
    share = chosen.weight / np.maximum(selected, 1)[rows.group]
    loss = group_sum((share * value.loss).astype(np.float32), rows.group, groups)
    cotangent = (value.cotangent * share[:, np.newaxis]).astype(np.float32)
    if recipe.through_statistics:
        asked, asked_cotangent = rows, cotangent
    else:
        still = Rows(rows.inputs, rows.theta, stats[rows.group], rows.group, np.zeros_like(rows.alpha))
        asked, asked_cotangent = still.take(keep), cotangent[keep]
    reply = yield from ask_gradients(Gradient(asked, asked_cotangent))
    gradient = group_sum(reply.grad_theta, asked.group, groups)
    theta = state[THETA]
    if recipe.pull is not None:
        gradient = gradient + recipe.pull.gradient(theta, source.theta, source.fisher)
    new_theta, new_state = recipe.optimiser.next(state, theta, gradient)
    proposed = {THETA: new_theta} | new_state
    active = selected > 0
    held = {name: _where(active, value, state[name]) for name, value in proposed.items()}
    return _Moved(held | chosen.state, loss, selected, len(asked))


def _check(
    recipe: Recipe, source: Source, proposal: State, batch: Batch
) -> Generator[Request, Reply, tuple[NDArray[np.int64], int]]:
    """Outcome of every guard `[S]`, and the forward rows that finding it took."""
    limits = recipe.guards
    theta, stats = proposal[THETA], proposal[STATS]
    groups = len(theta)
    sound = guard.finite(proposal)
    inside = guard.distance(np.where(sound[:, np.newaxis], theta, 0), source.theta) <= limits.trust_radius
    inside |= ~sound
    healthy = sound & inside
    verdicts = [(Outcome.ROLLED_BACK_NONFINITE, sound), (Outcome.ROLLED_BACK_TRUST_REGION, inside)]
    rows_used = 0
    if healthy.any():
        logits = yield from _forward_at(theta, stats, batch.inputs, batch.group, healthy)
        frozen = yield from ask_outputs(Frozen(batch.inputs))
        adapted_spread = guard.spread(logits, batch.group, groups)
        frozen_spread = guard.spread(frozen.logits, batch.group, groups)
        spread_ok = adapted_spread >= limits.collapse_ratio * frozen_spread
        verdicts.append((Outcome.ROLLED_BACK_COLLAPSE, spread_ok | ~healthy))
        rows_used = len(batch.group)
        canary_ok, canary_rows = yield from _check_canaries(limits, source, proposal, healthy)
        verdicts.append((Outcome.ROLLED_BACK_CANARY, canary_ok))
        rows_used += canary_rows
    return guard.worst(verdicts, groups), rows_used


def _check_canaries(
    limits: guard.Guards, source: Source, proposal: State, healthy: guard.Mask
) -> Generator[Request, Reply, tuple[guard.Mask, int]]:
    """Whether theta still answers source samples, under source statistics, for sessions whose turn it is."""
    groups, samples = len(healthy), len(source.canary_labels)
    due = np.flatnonzero(healthy & (proposal[STEPS] % max(limits.canary_every, 1) == 0))
    passed = np.ones(groups, np.bool_)
    if limits.canary_every == 0 or samples == 0 or len(due) == 0:
        return passed, 0
    owner = np.repeat(due, samples)
    inputs = np.concatenate([source.canary_inputs] * len(due))
    source_stats = np.repeat(source.stats[np.newaxis], groups, axis=0)
    logits = yield from _forward_at(proposal[THETA], source_stats, inputs, owner, healthy)
    frozen = yield from ask_outputs(Frozen(source.canary_inputs))
    baseline = (frozen.logits.argmax(axis=1) == source.canary_labels).mean()
    right = (logits.argmax(axis=1) == np.tile(source.canary_labels, len(due))).reshape(len(due), samples)
    passed[due] = right.mean(axis=1) >= baseline - limits.canary_tolerance
    return passed, len(owner)


def _forward_at(
    theta: Float, stats: Float, inputs: NDArray[Any], group: Index, healthy: guard.Mask
) -> Generator[Request, Reply, Float]:
    """Logits `[B, C]` at a proposal's own parameters; zeros for rows of sessions that are not healthy."""
    asked = np.flatnonzero(healthy[group])
    owner = group[asked]
    rows = Rows(inputs[asked], theta[owner], stats[owner], owner, np.zeros(len(asked), np.float32))
    outputs = yield from ask_outputs(Forward(rows))
    logits = np.zeros((len(group), outputs.logits.shape[1]), np.float32)
    logits[asked] = outputs.logits
    return logits


def _decide(
    recipe: Recipe, source: Source, state: State, proposal: State, moved: _Moved,
    verdict: NDArray[np.int64], forward_rows: int,
) -> StepResult:  # fmt: skip
    """Accept or roll back each session, count strikes, and say so."""
    accepted = verdict == Outcome.APPLIED
    strikes = np.where(accepted, 0, state[STRIKES] + 1)
    kept = {name: _where(accepted, proposal[name], state[name]) for name in state}
    kept[STRIKES] = strikes
    kept[STEPS] = proposal[STEPS]
    idle = accepted & (moved.selected == 0) & (recipe.objective is not None)
    return StepResult(
        state=kept,
        outcome=np.where(idle, Outcome.SKIPPED_NOT_SELECTED, verdict),
        restore=strikes >= recipe.guards.max_strikes,
        loss=moved.loss,
        selected=moved.selected,
        distance=guard.distance(kept[THETA], source.theta),
        forward_rows=forward_rows,
        backward_rows=moved.backward_rows,
    )


def _where(mask: guard.Mask, yes: NDArray[Any], no: NDArray[Any]) -> NDArray[Any]:
    """Rows of `yes` where the mask holds, else of `no`, in `no`'s dtype."""
    return np.where(mask.reshape(-1, *([1] * (no.ndim - 1))), yes, no).astype(no.dtype)
