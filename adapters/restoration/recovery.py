"""Back to the source when the running loss says that the model has collapsed (SAR: Niu et al. 2023, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import State


@dataclass(frozen=True, slots=True)
class Flagged:
    """Restore the sessions whose boolean field of this name is set; the move sets it."""

    field: str

    def due(self, state: State) -> NDArray[np.bool_]:
        """Which sessions `[S]` go back to the source after this step."""
        result: NDArray[np.bool_] = state[self.field]
        return result
