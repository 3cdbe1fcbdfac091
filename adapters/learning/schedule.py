"""How the learning rate goes over a lesson, as a factor of its peak."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float


def factor(step: NDArray[np.int64], steps: NDArray[np.int64], warmup: float, *, cosine: bool) -> Float:
    """The factor `[S]` at step 0, 1, ... of `steps [S]`.

    It rises linearly over the share `warmup` of the steps, then stays, or falls as a half cosine to 0 at the end
    (Loshchilov and Hutter 2017, "SGDR", arXiv 1608.03983, eq. 5, without restarts).
    """
    rising = np.maximum(warmup * steps, 1e-9)
    begun = np.minimum((step + 1) / np.maximum(rising, 1), 1)
    through = np.clip((step + 1 - rising) / np.maximum(steps - rising + 1, 1e-9), 0, 1)
    falling = 0.5 * (1 + np.cos(np.pi * through)) if cosine else np.ones_like(through)
    result: Float = (begun * falling).astype(np.float32)
    return result
