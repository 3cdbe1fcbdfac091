"""Back to the source every so many steps (RDumb: Press et al. 2023, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.fields import STEPS


@dataclass(frozen=True, slots=True)
class PeriodicReset:
    """Restore at each `every`-th step, 1000 in the paper; all count, whether they were applied or not."""

    every: int
    reason: ClassVar[str] = "periodic"

    def due(self, state: State, outcome: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which sessions `[S]` go back after this step."""
        result: NDArray[np.bool_] = (state[STEPS] > 0) & (state[STEPS] % self.every == 0)
        return result
