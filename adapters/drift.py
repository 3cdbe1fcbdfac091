"""Has the stream changed? Detectors over a session's scores, and distances from the source, for all sessions at once.

A detector is fed one value per session at a time; `watch.py` says which signal goes to which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.source import Source
from acclimate.adapters.windowing import Adwin

Double = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Detector(Protocol):
    """Something that is fed values and says when their level has changed."""

    def template(self) -> State:
        """One session's initial fields, without the session axis."""

    def update(self, state: State, value: Double, present: Mask) -> tuple[State, Mask]:
        """The fields after one more value `[S]` in the sessions where `present`, and which of them found a change."""


@dataclass(frozen=True, slots=True)
class PageHinkley:
    """Page's cumulative sum test in Hinkley's form, both directions (Page 1954; Gama et al. 2014, section 3.2).

    The sum of deviations from the running mean, less `tolerance`, rises above its lowest point by more than
    `threshold` after the level rose; and mirrored. A session that found a change starts again with its next value.

    Attributes:
        name: prefix of the fields.
        tolerance: size of a change that does not matter, in the values' unit.
        threshold: sum at which a change is declared; larger is later and surer.
        forgetting: factor of the old sum at each value.
        grace: values before a change can be declared.
    """

    name: str = "page_hinkley"
    tolerance: float = 0.005
    threshold: float = 50.0
    forgetting: float = 0.9999
    grace: int = 30

    def template(self) -> State:
        """Number and mean of the values; both sums, and the extreme of each."""
        parts = ("mean", "rising", "falling", "lowest", "highest")
        state: State = {f"{self.name}.{part}": np.zeros((), np.float64) for part in parts}
        return state | {f"{self.name}.count": np.zeros((), np.int64)}

    def update(self, state: State, value: Double, present: Mask) -> tuple[State, Mask]:
        """See `Detector.update`."""
        old = {name: state[f"{self.name}.{name}"] for name in ("mean", "rising", "falling", "lowest", "highest")}
        count = state[f"{self.name}.count"] + 1
        mean = old["mean"] + (value - old["mean"]) / count
        rising = self.forgetting * old["rising"] + value - mean - self.tolerance
        falling = self.forgetting * old["falling"] + value - mean + self.tolerance
        first = count == 1
        lowest = np.where(first, rising, np.minimum(old["lowest"], rising))
        highest = np.where(first, falling, np.maximum(old["highest"], falling))
        far = np.maximum(rising - lowest, highest - falling) > self.threshold
        changed = present & far & (count >= self.grace)
        new = {"mean": mean, "rising": rising, "falling": falling, "lowest": lowest, "highest": highest}
        fields: State = {
            f"{self.name}.{name}": np.where(changed, 0, np.where(present, new[name], old[name])) for name in new
        }
        kept = np.where(changed, 0, np.where(present, count, count - 1))
        return fields | {f"{self.name}.count": kept}, changed


def histogram_divergence(share: Float, prior: Float) -> Float:
    """Jensen-Shannon divergence `[S]` in nats of class frequencies `[S, C]` from the source's `[C]`; at most ln 2."""
    middle: Float = np.float32(0.5) * (share + prior)
    both: Float = _relative_entropy(share, middle) + _relative_entropy(prior, middle)
    result: Float = np.float32(0.5) * both
    return result


def fisher_distance(source: Source, theta: Float) -> Float:
    """`sum_i fisher_i (theta_i - theta0_i)^2`, `[S]` for theta `[S, P]`: how much of what mattered has moved."""
    result: Float = (source.fisher * (theta - source.theta) ** 2).sum(axis=1)
    return result


def _relative_entropy(p: Float, q: Float) -> Float:
    one = np.float32(1)
    result: Float = (p * (np.log(np.where(p > 0, p, one)) - np.log(np.where(p > 0, q, one)))).sum(axis=-1)
    return result


__all__ = ["Adwin", "Detector", "PageHinkley", "fisher_distance", "histogram_divergence"]
