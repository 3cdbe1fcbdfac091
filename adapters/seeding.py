"""Beginning a session elsewhere than at the source: what it must pass, and the state it begins with.

A seed stands for adaptation that happened somewhere else, so it is held to what a step is held to: finite numbers,
the trust region, and source samples answered about as well as the source model answers them.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np

from acclimate.adapters.asking import ask_outputs
from acclimate.adapters.bank import State
from acclimate.adapters.canaries import check_canaries
from acclimate.adapters.distances import theta_distance
from acclimate.adapters.fields import STATS, STEPS, STRIKES, THETA
from acclimate.adapters.guards import Guards
from acclimate.adapters.layout import Float
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.recipes import Recipe, template
from acclimate.adapters.requests import Reply, Request, Serve
from acclimate.adapters.source import Source


def check_seed(
    guards: Guards, source: Source, theta: Float, stats: Float
) -> Generator[Request, Reply, tuple[Outcome, float]]:
    """Ask what it takes to judge a seed `theta [P]`, `stats [Q]`; returns the verdict and theta's distance.

    The verdict is `APPLIED`, or the guard that refuses. Canaries are answered under the source's statistics, as in a
    step: they are source samples, and a seed's statistics belong to other ones. Under its own they must only be finite.
    """
    row = theta[np.newaxis]
    if not (np.isfinite(theta).all() and np.isfinite(stats).all()):
        return Outcome.ROLLED_BACK_NONFINITE, 0.0
    far = float(theta_distance(row, source)[0])
    if far > guards.trust_radius:
        return Outcome.ROLLED_BACK_TRUST_REGION, far
    never = np.zeros(1, np.int64)
    proposal: State = {THETA: row, STATS: stats[np.newaxis], STEPS: never, STRIKES: never}
    canaries = yield from check_canaries(guards, source, proposal, np.ones(1, np.bool_))
    if not canaries.passed[0]:
        return Outcome.ROLLED_BACK_CANARY, far
    if len(source.canary_inputs):
        group = np.zeros(len(source.canary_inputs), np.intp)
        served = yield from ask_outputs(Serve(source.canary_inputs, row, stats[np.newaxis], group))
        if not np.isfinite(served.logits).all():
            return Outcome.ROLLED_BACK_NONFINITE, far
    return Outcome.APPLIED, far


def seed_state(recipe: Recipe, source: Source, theta: Float, stats: Float) -> State:
    """One session's initial state at a seed: what its parts remember (a teacher, an average) begins there too."""
    return template(recipe, replace(source, theta=theta, stats=stats))
