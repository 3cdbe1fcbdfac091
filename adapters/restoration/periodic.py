"""Back to the source every so many steps (RDumb: Press et al. 2023, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State
from acclimate.adapters.fields import STEPS


@dataclass(frozen=True, slots=True)
class PeriodicReset:
    """Restore after `every` steps, 1000 in the paper; every step counts, whether it was applied or not."""

    every: int

    def due(self, state: State) -> NDArray[np.bool_]:
        """Which sessions `[S]` go back to the source after this step."""
        result: NDArray[np.bool_] = state[STEPS] >= self.every
        return result
