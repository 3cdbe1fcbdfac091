"""The protocol between the scheduler and whatever computes a model.

Four calls compute, one folds a commit, one closes. Nothing outside `engines/` knows which engine it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import Manifest
from acclimate.adapters.requests import Forward, Gradient, Gradients, Outputs
from acclimate.adapters.source import Source


@dataclass(frozen=True, slots=True)
class Folded:
    """One session's `(theta, stats)` in the form that `predict` runs on; opaque to everyone but its engine."""

    arrays: tuple[Any, ...]
    settling: Any = None
    """What the engine remembers of this fold from answer to answer."""


@dataclass(frozen=True, slots=True)
class Specialised:
    """Sessions that an engine answers by a graph of their own: now, since the start, and given up for others."""

    count: int = 0
    made: int = 0
    evicted: int = 0


class Engine(Protocol):
    """A loaded model. Calls are safe from several threads at once; arrays passed in are never written."""

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""

    @property
    def source(self) -> Source:
        """The unadapted model's arrays."""

    @property
    def specialised(self) -> Specialised:
        """How many sessions have a graph of their own; zeros where the engine makes none."""

    def frozen(self, inputs: NDArray[Any]) -> Float:
        """Logits `[B, C]` of the unadapted quantized model for inputs `[B, ...]`."""

    def fold(self, theta: Float, stats: Float) -> Folded:
        """Turn one session's `theta [P]` and `stats [Q]` into what `predict` needs; done once per commit."""

    def predict(self, inputs: NDArray[Any], folded: Folded) -> Float:
        """Logits `[B, C]` of the quantized model for rows of one session."""

    def forward(self, request: Forward) -> Outputs:
        """Float logits and batch statistics for rows of many sessions."""

    def vjp(self, request: Gradient) -> Gradients:
        """Per-row vector-Jacobian products for rows of many sessions."""

    def close(self) -> None:
        """Release what the engine holds; calling it twice is harmless."""
