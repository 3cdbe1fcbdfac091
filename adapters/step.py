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
from acclimate.adapters.canaries import check_canaries, served_at
from acclimate.adapters.distances import theta_distance
from acclimate.adapters.fields import STATS, STEPS, STRIKES, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.moves.base import Moved, Seen, only_where
from acclimate.adapters.numerics import group_count
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.recipes.base import Recipe
from acclimate.adapters.requests import Forward, Frozen, Gradient, Index, Reply, Request, Rows, Serve
from acclimate.adapters.returning import go_back
from acclimate.adapters.signals import SIGNALS
from acclimate.adapters.source import Source
from acclimate.adapters.watch import LEVELS, REASON

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
        reason: `[S]` why the session goes back, a stable word: `strikes` (refused too often), or the reason of the
            reset that was due; empty where it does not.
        back_to: `[S]` the version of the checkpoint that `state` is at where the session goes back to one; where it
            goes back and this is 0, whoever holds the session sets it to the source.
        drift: `[S]` `Drift` numbers: what changed in the stream.
        levels: `[S, 5]` the latest levels of the signals that are watched for it (`signals.py`).
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
    reason: NDArray[np.str_]
    back_to: NDArray[np.int64]
    drift: NDArray[np.int64]
    levels: Float
    logits: Float
    loss: Float
    selected: NDArray[np.int64]
    distance: Float
    asked: Asked

    @property
    def restore(self) -> NDArray[np.bool_]:
        """Sessions `[S]` that are to be set to the source."""
        result: NDArray[np.bool_] = (self.reason != "") & (self.back_to == 0)
        return result


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
    watched: State = {}
    if recipe.watch is not None:
        watched = recipe.watch.observe(source, state, outputs, batch_stats, batch.group, alpha)
    labels = np.full(len(rows), -1, np.int64) if batch.labels is None else batch.labels
    seen = Seen(rows, outputs.logits, stats, batch_stats, labels, outputs.features)
    moved = _still(groups) if recipe.move is None else (yield from recipe.move.propose(source, state, seen))
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
        logits = yield from served_at(theta, stats, batch.inputs, batch.group, healthy)
        frozen = yield from ask_outputs(Frozen(batch.inputs))
        adapted_spread = guard.spread(logits, batch.group, groups)
        frozen_spread = guard.spread(frozen.logits, batch.group, groups)
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
