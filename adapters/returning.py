"""Sessions that go back as a whole: when, and to what."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.fields import STEPS, STRIKES
from acclimate.adapters.recipes.base import Recipe, template
from acclimate.adapters.restoration.ring import PREFIX, RING_STATS, RING_THETA, RING_VERSION
from acclimate.adapters.source import Source


@dataclass(frozen=True, slots=True)
class Returned:
    """The sessions' state, and for each why it goes back and to which version.

    Attributes:
        state: fields `[S, ...]`, those of the checkpoint for sessions that go back to one.
        reason: `[S]` a stable word, empty for sessions that stay.
        version: `[S]` of the checkpoint; 0 is the source, or nothing.
    """

    state: State
    reason: NDArray[np.str_]
    version: NDArray[np.int64]


def go_back(recipe: Recipe, source: Source, state: State, outcome: NDArray[np.int64]) -> Returned:
    """Which sessions go back after a step of this `outcome [S]`, and their state where that is a checkpoint's.

    Whoever holds the sessions resets those that go back to the source.
    """
    reason: NDArray[np.str_] = np.where(state[STRIKES] >= recipe.guards.max_strikes, "strikes", "")
    for reset in recipe.resets:
        reason = np.where((reason == "") & reset.due(state, outcome), reset.reason, reason)
    version = np.zeros(len(reason), np.int64)
    if recipe.ring is None or not (reason != "").any():
        return Returned(state, reason, version)
    place = recipe.ring.best(state)
    rewound = {name: value.copy() for name, value in state.items()}
    for session in np.flatnonzero((reason != "") & (place >= 0)):
        version[session] = state[RING_VERSION][session, place[session]]
        for name, value in _begun(recipe, source, state, int(session), int(place[session])).items():
            rewound[name][session] = value
    return Returned(rewound, reason, version)


def _begun(recipe: Recipe, source: Source, state: State, session: int, place: int) -> State:
    """The fields of one session that begins anew at a checkpoint; its steps, ring and watch go on."""
    theta, stats = state[RING_THETA][session, place], state[RING_STATS][session, place]
    begun = template(recipe, replace(source, theta=theta, stats=stats))
    watched = {} if recipe.watch is None else recipe.watch.template(source)
    return {
        name: value
        for name, value in begun.items()
        if name != STEPS and name not in watched and not name.startswith(PREFIX)
    }
