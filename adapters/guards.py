"""What a proposed update must pass before it is committed.

Each guard answers, per session, whether the proposal may stand. A refused proposal leaves the session's state
as it was; sessions refused too often in a row go back to the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import group_mean
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.requests import Index

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Guards:
    """Tolerances of the transaction.

    Attributes:
        trust_radius: largest relative distance of theta from the source, `theta_distance`, that may be committed.
        collapse_ratio: the adapted answers to the step's own samples must spread over at least this share of
            the classes (as perplexity of the answer histogram) that the frozen model's answers spread over.
        canary_tolerance: share of canary samples that the proposal may answer worse than the frozen model.
        canary_every: check the canaries at each n-th step of a session, and after a refusal until one passes; 0 never.
        max_strikes: refusals in a row after which the session is restored to the source.
        rows: samples of a session's batch whose answers the collapse guard compares, at most.
    """

    trust_radius: float = 0.5
    collapse_ratio: float = 0.5
    canary_tolerance: float = 0.1
    canary_every: int = 1
    max_strikes: int = 4
    rows: int = 32


def finite(state: State) -> Mask:
    """Sessions `[S]` whose every floating-point field is finite."""
    checks = [
        np.isfinite(value).reshape(len(value), -1).all(axis=1) for value in state.values() if value.dtype.kind == "f"
    ]
    result: Mask = np.logical_and.reduce(checks)
    return result


def spread(logits: Float, group: Index, groups: int) -> Float:
    """Perplexity `[S]` of the histogram of answers of each group: 1 is one class only, C all classes alike."""
    answers = np.eye(logits.shape[1], dtype=np.float32)[logits.argmax(axis=1)]
    share = group_mean(answers, group, groups)
    logs = np.log(np.where(share > 0, share, 1))
    result: Float = np.exp(-(share * logs).sum(axis=1))
    return result


def worst(verdicts: list[tuple[Outcome, Mask]], groups: int) -> NDArray[np.int64]:
    """The first outcome `[S]` whose mask of passing sessions says no; APPLIED where all say yes."""
    outcome = np.full(groups, Outcome.APPLIED, np.int64)
    for failure, passed in reversed(verdicts):
        outcome = np.where(passed, outcome, failure)
    return outcome
