"""What a move is shown, and what it gives back.

A move is a machine that asks, like the step it is part of: it yields requests, is sent replies, and returns the
fields of the state that it wants changed. The driver checks the proposal; a move checks nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.requests import Index, Reply, Request, Rows
from acclimate.adapters.source import Source


@dataclass(frozen=True, slots=True)
class Seen:
    """The forward pass that every step begins with.

    Attributes:
        rows: what was asked, theta and stats as they were before the step.
        logits: `[B, C]` answers at these parameters.
        stats: `[S, Q]` the statistics that the step will leave behind.
        batch_stats: `[S, Q]` the statistics of the batch alone, as the first forward pass found them.
        labels: `[B]` true classes that arrived as feedback, -1 where none did.
        features: `[B, D]` what the last linear layer saw; empty where the model has none.
        answering: whether the step's answers will be read.
    """

    rows: Rows
    logits: Float
    stats: Float
    batch_stats: Float
    labels: NDArray[np.int64]
    features: Float
    answering: bool = True

    @property
    def sessions(self) -> int:
        """Number of sessions in the step, S."""
        return len(self.stats)

    def still(self) -> Rows:
        """The rows with the new statistics held fixed, so that each is independent of the others."""
        rows = self.rows
        return Rows(rows.inputs, rows.theta, self.stats[rows.group], rows.group, np.zeros_like(rows.alpha))


@dataclass(frozen=True, slots=True)
class Moved:
    """A proposal.

    Attributes:
        state: changed fields `[S, ...]`; what is not named stays.
        loss: `[S]` mean loss of the selected samples, 0 where none.
        selected: `[S]` samples that the gradient counted.
        answers: `[B, C]` logits that take the place of the first pass's as the step's answers, or None.
        gradient: `[S, P]` that a descent of the served theta followed, 0 where it did not; None for other moves.
    """

    state: State
    loss: Float
    selected: NDArray[np.int64]
    answers: Float | None = None
    gradient: Float | None = None


def among(seen: Seen, sessions: Index) -> Seen:
    """What the sessions at these places saw, numbered anew in this order."""
    number = np.full(seen.sessions, -1, np.intp)
    number[sessions] = np.arange(len(sessions))
    keep = np.flatnonzero(number[seen.rows.group] >= 0)
    rows = seen.rows.take(keep)
    return Seen(
        replace(rows, group=number[rows.group]),
        seen.logits[keep],
        seen.stats[sessions],
        seen.batch_stats[sessions],
        seen.labels[keep],
        seen.features[keep] if len(seen.features) else seen.features,
        seen.answering,
    )


class Move(Protocol):
    """How theta moves."""

    def template(self, source: Source) -> State:
        """One session's initial fields of this move, without the session axis."""

    def propose(self, source: Source, state: State, seen: Seen) -> Generator[Request, Reply, Moved]:
        """Ask for what is needed, and return the change for sessions `state [S, ...]`."""


def only_where(mask: NDArray[np.bool_], yes: State, no: State) -> State:
    """Fields of `yes` for the sessions `[S]` where the mask holds, else of `no`, in `no`'s dtypes."""
    result: State = {}
    for name, value in yes.items():
        wide = mask.reshape(-1, *([1] * (value.ndim - 1)))
        result[name] = np.where(wide, value, no[name]).astype(no[name].dtype)
    return result


def weighted_share(weight: Float, group: Index, sessions: int) -> tuple[Float, NDArray[np.int64]]:
    """Weights `[B]` divided by their session's number of selected rows, and those numbers `[S]`."""
    selected = np.bincount(group[weight > 0], minlength=sessions).astype(np.int64)
    return (weight / np.maximum(selected, 1)[group]).astype(np.float32), selected
