"""Source samples that a proposal must still answer, and what the quantized model would answer if it were served."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.asking import ask_outputs
from acclimate.adapters.bank import State
from acclimate.adapters.fields import STEPS, STRIKES, THETA
from acclimate.adapters.guards import Guards, Mask
from acclimate.adapters.layout import Float
from acclimate.adapters.requests import Frozen, Index, Reply, Request, Serve
from acclimate.adapters.source import Source


@dataclass(frozen=True, slots=True)
class Canaries:
    """Which sessions `[S]` pass, and their accuracy `[S]` on the canaries; 0 where it was not measured."""

    passed: Mask
    accuracy: Float


def check_canaries(
    limits: Guards, source: Source, proposal: State, healthy: Mask, scored: Mask | None = None
) -> Generator[Request, Reply, Canaries]:
    """Whether theta still answers source samples, under source statistics, for sessions whose turn it is.

    A session's turn is at each `canary_every`-th step, and it can only fail then. Once refused it is measured at every
    step until it passes: what a refusal leaves is a state that no check has seen, and steps from there that none sees
    either would take theta past the tolerance half a step at a time. Those in `scored` are measured too.
    """
    groups, samples = len(healthy), len(source.canary_labels)
    turn = (proposal[STEPS] % max(limits.canary_every, 1) == 0) | (proposal[STRIKES] > 0)
    turn &= limits.canary_every > 0
    due = np.flatnonzero(healthy & (turn if scored is None else turn | scored))
    passed, accuracy = np.ones(groups, np.bool_), np.zeros(groups, np.float32)
    if samples == 0 or len(due) == 0:
        return Canaries(passed, accuracy)
    owner = np.repeat(due, samples)
    inputs = np.concatenate([source.canary_inputs] * len(due))
    source_stats = np.repeat(source.stats[np.newaxis], groups, axis=0)
    logits = yield from served_at(proposal[THETA], source_stats, inputs, owner, healthy)
    right = (logits.argmax(axis=1) == np.tile(source.canary_labels, len(due))).reshape(len(due), samples)
    accuracy[due] = right.mean(axis=1)
    frozen = yield from ask_outputs(Frozen(source.canary_inputs))
    baseline = (frozen.logits.argmax(axis=1) == source.canary_labels).mean()
    passed[due] = right.mean(axis=1) >= baseline - limits.canary_tolerance
    return Canaries(passed | ~turn, accuracy)


def served_at(
    theta: Float, stats: Float, inputs: NDArray[Any], group: Index, healthy: Mask
) -> Generator[Request, Reply, Float]:
    """Logits `[B, C]` that a proposal would serve; zeros for rows of sessions that are not healthy."""
    asked = np.flatnonzero(healthy[group])
    outputs = yield from ask_outputs(Serve(inputs[asked], theta, stats, group[asked]))
    logits = np.zeros((len(group), outputs.logits.shape[1]), np.float32)
    logits[asked] = outputs.logits
    return logits
