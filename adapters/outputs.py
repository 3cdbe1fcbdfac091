"""Output stages: corrections of the answers that need no parameter and no gradient.

A stage is a pure function of a session's state and a batch of logits. The driver applies it to the answers of a
step; a server applies `apply` to the rows of a prediction in the same way, and may leave the changed fields alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.requests import Index
from acclimate.adapters.source import Source


class OutputStage(Protocol):
    """How answers are corrected; `reads_features` says whether that takes the features of a float pass."""

    reads_features: ClassVar[bool]

    def template(self, source: Source) -> State:
        """One session's initial fields of this stage, without the session axis."""

    def apply(self, source: Source, state: State, logits: Float, group: Index, features: Float) -> tuple[Float, State]:
        """Corrected logits `[B, C]` of rows of sessions `state [S, ...]`, and the changed fields.

        `features [B, D]` are empty where the pass that made the logits has none.
        """


@dataclass(frozen=True, slots=True)
class AsIs:
    """No correction."""

    reads_features: ClassVar[bool] = False

    def template(self, source: Source) -> State:
        """No state."""
        return {}

    def apply(self, source: Source, state: State, logits: Float, group: Index, features: Float) -> tuple[Float, State]:
        """The same logits."""
        return logits, {}
