"""Watching a session's stream for drift while it learns: what changed, and at which step.

Each step feeds detectors with what its first pass saw anyway, whether the step is committed or not. An alarm is told to
whoever watches the session, a move finds it in the field `drift.reason`, and a session may be restored at it
(`restoration/policy.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.drift import Adwin, Detector, PageHinkley
from acclimate.adapters.layout import Float
from acclimate.adapters.numerics import group_count
from acclimate.adapters.requests import Index, Outputs
from acclimate.adapters.signals import SIGNALS, USUAL, levels, usual
from acclimate.adapters.source import Source

REASON = "drift.reason"
"""`[S]` int64: the `Drift` that the last step found."""
LEVELS = "drift.levels"
"""`[S, 5]` float32: the latest level of each of `SIGNALS`."""

Choice = Literal["page_hinkley", "adwin", "none"]


class Drift(IntEnum):
    """Which signal changed its level."""

    NONE = 0
    ENTROPY = 1
    STATISTICS = 2
    CONFIDENCE = 3
    PREDICTIONS = 4
    PARAMETERS = 5

    @property
    def reason(self) -> str:
        """A stable word for labels and events, empty for none."""
        return "" if self is Drift.NONE else self.name.lower()


# Where two signals change at once, the first of these is told.
PRECEDENCE = (Drift.STATISTICS, Drift.ENTROPY, Drift.CONFIDENCE, Drift.PREDICTIONS, Drift.PARAMETERS)

# Page-Hinkley's tolerance and threshold for each signal, for means over 32 samples: a change by a tenth of the
# entropy's range, or of the distance by half, is found within about four steps.
SENSITIVITY: dict[str, tuple[float, float]] = {
    "entropy": (0.03, 0.3),
    "confidence": (0.03, 0.3),
    "statistics": (0.1, 1.0),
    "predictions": (0.03, 0.3),
    "parameters": (0.1, 1.0),
}
REFERENCE_ROWS = 32
DEFAULTS: dict[str, Choice] = {
    "entropy": "page_hinkley",
    "confidence": "none",
    "statistics": "page_hinkley",
    "predictions": "page_hinkley",
    "parameters": "page_hinkley",
}


def detector(signal: str, choice: Choice) -> Detector | None:
    """The detector that a signal is fed to.

    ADWIN looks for a cut at every step and remembers 1275; the confidence of its cuts is the paper's 0.002.
    """
    match choice:
        case "page_hinkley":
            tolerance, threshold = SENSITIVITY[signal]
            return PageHinkley(f"drift.{signal}", tolerance, threshold, 0.9999, 8)
        case "adwin":
            return Adwin(f"drift.{signal}", clock=1, levels=8)
        case "none":
            return None


def _default(signal: str) -> Detector | None:
    return detector(signal, DEFAULTS[signal])


@dataclass(frozen=True, slots=True)
class Watch:
    """A detector, or None, for each signal of `SIGNALS`, fed one value a session and step.

    One change is told once: after an alarm the session's detectors and its slow average start again.

    Attributes:
        entropy, confidence, statistics, predictions, parameters: the detectors. Confidence follows entropy, so by
            default only one of them is watched.
        memory: samples that the slow average of predictions is worth.
    """

    entropy: Detector | None = field(default_factory=lambda: _default("entropy"))
    confidence: Detector | None = field(default_factory=lambda: _default("confidence"))
    statistics: Detector | None = field(default_factory=lambda: _default("statistics"))
    predictions: Detector | None = field(default_factory=lambda: _default("predictions"))
    parameters: Detector | None = field(default_factory=lambda: _default("parameters"))
    memory: float = 512.0

    @classmethod
    def of(cls, choices: Mapping[str, Choice]) -> Watch:
        """The watch with these detectors by signal, the default ones for the signals that are not named."""
        chosen = {signal: detector(signal, choice) for signal, choice in (DEFAULTS | dict(choices)).items()}
        return cls(
            entropy=chosen["entropy"],
            confidence=chosen["confidence"],
            statistics=chosen["statistics"],
            predictions=chosen["predictions"],
            parameters=chosen["parameters"],
        )

    def template(self, source: Source) -> State:
        """What the detectors remember of one session, its slow average, levels, and what the last step found."""
        own: State = {
            USUAL: source.class_prior.astype(np.float32),
            LEVELS: np.zeros(len(SIGNALS), np.float32),
            REASON: np.zeros((), np.int64),
        }
        return self._fresh() | own

    def observe(
        self, source: Source, state: State, outputs: Outputs, batch_stats: Float, group: Index, alpha: Float
    ) -> State:
        """The fields after one more step; for the arguments see `levels`."""
        found = levels(source, state, outputs, batch_stats, group, alpha)
        # Means over fewer samples are noisier, and so much more of a change is asked for.
        scale = np.sqrt(np.minimum(group_count(group, len(found)) / REFERENCE_ROWS, 1))
        fields: State = {}
        reason = np.zeros(len(found), np.int64)
        for drift in reversed(PRECEDENCE):
            watching: Detector | None = getattr(self, drift.reason)
            if watching is None:
                continue
            value = found[:, SIGNALS.index(drift.reason)]
            # A NaN would stay in the detector for ever.
            known = ~np.isnan(value)
            fed, changed = watching.update(state, np.where(known, value * scale, 0), known)
            fields |= fed
            reason = np.where(changed, np.int64(drift), reason)
        alarm = reason != Drift.NONE
        for name, first in self._fresh().items():
            fields[name] = np.where(alarm.reshape(-1, *([1] * first.ndim)), first, fields[name])
        seen = np.where(np.isnan(found), state[LEVELS], found).astype(np.float32)
        return fields | {USUAL: usual(state, outputs.logits, group, self.memory, alarm), LEVELS: seen, REASON: reason}

    def _fresh(self) -> State:
        """One session's detectors before their first value."""
        detectors = [getattr(self, signal) for signal in SIGNALS]
        return {name: value for one in detectors if one is not None for name, value in one.template().items()}
