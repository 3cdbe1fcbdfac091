"""Going back when a field of the state, or a guard's refusal, says that it is time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Flagged:
    """Restore the sessions whose field of this name is not zero; a move or the watch sets it. `reason` is told.

    SAR sets one when its running loss says that the model has collapsed (Niu et al. 2023, section 4.2).
    """

    field: str
    reason: str = "recovery"

    def due(self, state: State, outcome: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which sessions `[S]` go back after this step."""
        result: NDArray[np.bool_] = state[self.field] != 0
        return result


@dataclass(frozen=True, slots=True)
class Refused:
    """Restore the sessions whose step one guard has refused, at its first refusal; the reason is the guard's."""

    guard: Outcome

    @property
    def reason(self) -> str:
        """A stable word."""
        return self.guard.reason

    def due(self, state: State, outcome: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which sessions `[S]` go back after this step."""
        result: NDArray[np.bool_] = outcome == self.guard
        return result
