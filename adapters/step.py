"""The one driver of every recipe: a transaction over the sessions of a batch, as a machine that asks.

`adaptation_step` is a generator. It yields a request (`Forward`, `Gradient`, `Frozen`), is sent the reply, and
returns a `StepResult`. It holds no engine, reads no clock and writes to none of the arrays it is given.
The order is always: normalise, select, differentiate, move, check, decide.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters import guards as guard
from acclimate.adapters.asking import ask_outputs
from acclimate.adapters.bank import State
from acclimate.adapters.canaries import check_canaries, served_at
from acclimate.adapters.distances import theta_distance
from acclimate.adapters.fields import STATS, STEPS, STRIKES, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen, only_where
from acclimate.adapters.numerics import group_count
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.randomness import rank
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.requests import Forward, Frozen, Reply, Request, Rows, Serve
from acclimate.adapters.resting import rested, woven
from acclimate.adapters.returning import go_back
from acclimate.adapters.signals import SIGNALS
from acclimate.adapters.source import Source
from acclimate.adapters.stepped import Asked, Batch, StepResult
from acclimate.adapters.watch import LEVELS, REASON

__all__ = ["Asked", "Asking", "Batch", "StepResult", "adaptation_step"]

Asking = Generator[Request, Reply, StepResult]


def adaptation_step(recipe: Recipe, source: Source, state: State, batch: Batch) -> Asking:
    """Propose, check, decide, for the sessions in `state [S, ...]` with the samples in `batch`.

    Every session must own at least one row of the batch.
    """
    asked, step = Asked(), _paced(recipe, source, state, batch)
    try:
        request = next(step)
        while True:
            asked.count(request)
            request = step.send((yield request))
    except StopIteration as finished:
        result: StepResult = finished.value
        return replace(result, asked=asked)


def _paced(recipe: Recipe, source: Source, state: State, batch: Batch) -> Asking:
    """A step of the sessions that are awake; the others rest."""
    if recipe.pace is None:
        return (yield from _step(recipe, source, state, batch))
    answers = batch.answers
    if answers is None:
        served = Serve(batch.inputs, state[THETA], state[STATS], batch.group)
        answers = (yield from ask_outputs(served)).logits
    paced = recipe.pace.choose(state, batch.inputs, answers, batch.group, batch.may)
    state = state | paced.state
    awake = np.flatnonzero(paced.awake)
    resting = rested(source, state, answers, paced)
    if len(awake) == 0:
        return resting
    seen = paced.awake[batch.group] & recipe.pace.looks_at(batch.group)
    if seen.all():
        return (yield from _step(recipe, source, state, batch))
    part, rows = batch.of(awake, seen)
    stepped = yield from _step(recipe, source, {name: value[awake] for name, value in state.items()}, part)
    result = woven(resting, stepped, awake, rows)
    unseen = np.flatnonzero(paced.awake[batch.group] & ~seen)
    if batch.answering and len(unseen):
        # Answered like the others of their batch: before theta's update, with the statistics that it brought.
        late = Serve(batch.inputs[unseen], state[THETA], result.state[STATS], batch.group[unseen])
        result.logits[unseen] = (yield from ask_outputs(late)).logits
    return result


def _step(recipe: Recipe, source: Source, state: State, batch: Batch) -> Asking:
    groups = len(state[THETA])
    count = group_count(batch.group, groups)
    alpha = recipe.statistics.alpha(count)
    base = recipe.statistics.base(state[STATS], source.stats)
    rows = Rows(batch.inputs, state[THETA][batch.group], base[batch.group], batch.group, alpha[batch.group])
    outputs = yield from ask_outputs(Forward(rows))
    batch_stats = outputs.batch_stats[np.unique(batch.group, return_index=True)[1]]
    stats = recipe.statistics.move(base, batch_stats, alpha)
    watched: State = {}
    if recipe.watch is not None:
        watched = recipe.watch.observe(source, state, outputs, batch_stats, batch.group, alpha)
    labels = np.full(len(rows), -1, np.int64) if batch.labels is None else batch.labels
    seen = Seen(rows, outputs.logits, stats, batch_stats, labels, outputs.features, batch.answering)
    moved = _still(groups) if recipe.move is None else (yield from recipe.move.propose(source, state, seen))
    if recipe.statistics.rereads and batch.answering:
        outputs = yield from ask_outputs(Forward(seen.still()))
    logits = outputs.logits if moved.answers is None else moved.answers
    corrected, remembered = recipe.outputs.apply(source, state, logits, batch.group, outputs.features)
    proposal = state | {STATS: stats, STEPS: state[STEPS] + 1} | moved.state | remembered
    verdict, accuracy = yield from _check(recipe, source, proposal, np.isfinite(moved.loss), batch)
    return _decide(recipe, source, state, proposal | watched, moved, verdict, accuracy, corrected)


def _still(sessions: int) -> Moved:
    """The move of a recipe that has none."""
    return Moved({}, np.zeros(sessions, np.float32), np.zeros(sessions, np.int64))


def _check(
    recipe: Recipe, source: Source, proposal: State, computed: guard.Mask, batch: Batch
) -> Generator[Request, Reply, tuple[NDArray[np.int64], Float]]:
    """Outcome of the guards `[S]`, and the accuracy `[S]` on the canaries where it was measured.

    What is checked is the quantized model that would serve the proposal.
    """
    limits = recipe.guards
    theta, stats = proposal[THETA], proposal[STATS]
    groups = len(theta)
    sound = guard.finite(proposal) & computed
    inside = theta_distance(np.where(sound[:, np.newaxis], theta, 0), source) <= limits.trust_radius
    inside |= ~sound
    healthy = sound & inside
    accuracy = np.zeros(groups, np.float32)
    verdicts = [(Outcome.ROLLED_BACK_NONFINITE, sound), (Outcome.ROLLED_BACK_TRUST_REGION, inside)]
    if healthy.any():
        some = np.flatnonzero(rank(batch.group) < limits.rows)
        inputs, group = batch.inputs[some], batch.group[some]
        logits = yield from served_at(theta, stats, inputs, group, healthy)
        frozen = yield from ask_outputs(Frozen(inputs))
        adapted_spread = guard.spread(logits, group, groups)
        frozen_spread = guard.spread(frozen.logits, group, groups)
        spread_ok = adapted_spread >= limits.collapse_ratio * frozen_spread
        verdicts.append((Outcome.ROLLED_BACK_COLLAPSE, spread_ok | ~healthy))
        scored = None if recipe.ring is None else recipe.ring.due(proposal)
        canaries = yield from check_canaries(limits, source, proposal, healthy, scored)
        verdicts.append((Outcome.ROLLED_BACK_CANARY, canaries.passed))
        accuracy = canaries.accuracy
    return guard.worst(verdicts, groups), accuracy


def _decide(
    recipe: Recipe,
    source: Source,
    state: State,
    proposal: State,
    moved: Moved,
    verdict: NDArray[np.int64],
    accuracy: Float,
    logits: Float,
) -> StepResult:
    """Accept or roll back each session, count strikes, take checkpoints, and send back who is to go."""
    accepted = verdict == Outcome.APPLIED
    strikes = np.where(accepted, 0, state[STRIKES] + 1)
    kept = only_where(accepted, {name: proposal[name] for name in state}, state)
    # What counts steps and watches the stream goes on where a step was refused.
    kept |= {STRIKES: strikes, STEPS: proposal[STEPS]}
    kept |= {name: proposal[name] for name in ([] if recipe.watch is None else recipe.watch.template(source))}
    if recipe.ring is not None:
        kept |= recipe.ring.take(kept, accuracy, accepted & recipe.ring.due(kept))
    returned = go_back(recipe, source, kept, verdict)
    idle = accepted & (moved.selected == 0) & (recipe.move is not None)
    return StepResult(
        state=returned.state,
        outcome=np.where(idle, Outcome.SKIPPED_NOT_SELECTED, verdict),
        reason=returned.reason,
        back_to=returned.version,
        drift=kept.get(REASON, np.zeros(len(strikes), np.int64)),
        levels=kept.get(LEVELS, np.zeros((len(strikes), len(SIGNALS)), np.float32)),
        logits=logits,
        loss=moved.loss,
        selected=moved.selected,
        distance=theta_distance(returned.state[THETA], source),
        asked=Asked(),
    )
