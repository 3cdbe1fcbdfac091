"""The result of sessions that rest, and of a step in which some do and some do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.distances import theta_distance
from acclimate.adapters.fields import THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.pacing import Paced
from acclimate.adapters.requests import Index
from acclimate.adapters.signals import SIGNALS
from acclimate.adapters.source import Source
from acclimate.adapters.stepped import Asked, StepResult
from acclimate.adapters.watch import LEVELS

STARVED = "starved"
"""Why a session goes back whose stream has changed, and which cannot pay for following it."""


def rested(source: Source, state: State, answers: Float, paced: Paced) -> StepResult:
    """All sessions of `state [S, ...]` rest, and keep the answers `[B, C]` that their samples were given."""
    sessions = len(state[THETA])
    return StepResult(
        state=state,
        outcome=np.where(paced.denied, Outcome.SKIPPED_BUDGET, Outcome.SKIPPED_RESTING).astype(np.int64),
        reason=np.where(paced.lost, STARVED, ""),
        back_to=np.zeros(sessions, np.int64),
        drift=np.zeros(sessions, np.int64),
        levels=state.get(LEVELS, np.zeros((sessions, len(SIGNALS)), np.float32)),
        logits=answers,
        loss=np.zeros(sessions, np.float32),
        selected=np.zeros(sessions, np.int64),
        distance=theta_distance(state[THETA], source),
        asked=Asked(),
    )


def woven(resting: StepResult, stepped: StepResult, awake: Index, rows: Index) -> StepResult:
    """The result of all sessions, where those at the places `awake`, whose samples are `rows`, took a step."""
    fields = ("outcome", "back_to", "drift", "levels", "loss", "selected", "distance")
    both = {name: _put(getattr(resting, name), awake, getattr(stepped, name)) for name in fields}
    # A word of the one may be longer than any of the other.
    reason = resting.reason.astype(object)
    reason[awake] = stepped.reason
    return replace(
        resting,
        state={name: _put(value, awake, stepped.state[name]) for name, value in resting.state.items()},
        reason=reason.astype(np.str_),
        logits=_put(resting.logits, rows, stepped.logits),
        asked=stepped.asked,
        **both,
    )


def _put(all_: np.ndarray, where: Index, values: np.ndarray) -> np.ndarray:
    result = all_.copy()
    result[where] = values
    return result
