"""The next token of a text: the likeliest, or one drawn with the text's own random numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from acclimate.runtime.engines.language import Sampling


class Chooser:
    """Draws the tokens of one text; the same seed and logits give the same tokens in any company."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)

    @property
    def greedy(self) -> bool:
        """Whether it takes the likeliest token."""
        return self._sampling.temperature <= 0

    def draw(self, logits: Tensor) -> int:
        """A token of the distribution `softmax(logits [V] / temperature)`, cut to the nucleus `top_p`."""
        shares = torch.softmax(logits.double() / self._sampling.temperature, 0)
        number = self._random.random()
        if self._sampling.top_p < 1:
            shares, ids = shares.sort(descending=True, stable=True)
            # The nucleus holds the tokens before which less than top_p lies (Holtzman et al. 2020, 1904.09751).
            sums = shares.cumsum(0)
            kept = max(int((sums - shares < self._sampling.top_p).sum()), 1)
            place = int(torch.searchsorted(sums[:kept], number * float(sums[kept - 1]), right=True))
            return int(ids[min(place, kept - 1)])
        sums = shares.cumsum(0)
        return min(int(torch.searchsorted(sums, number * float(sums[-1]), right=True)), len(sums) - 1)
