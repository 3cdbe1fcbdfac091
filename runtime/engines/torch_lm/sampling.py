"""The next token of a text: the likeliest, or one drawn with the text's own random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from acclimate.runtime.engines.language import Sampling
from acclimate.runtime.engines.torch_lm.scoring import sharpen

LIKELY = 32
"""Tokens whose logits are computed in float32 besides, so that near ties are told apart."""
CHUNK = 64
"""Tokens of which only the likeliest is looked at when the likely ones are sought."""


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
        # Less the largest first: divided by the smallest temperatures it would be infinite, and no share a number.
        exact = logits.double()
        shares = torch.softmax((exact - exact.max()) / self._sampling.temperature, 0)
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


def likely(logits: Tensor) -> Tensor:
    """Ids `[n, k]` of the largest of `logits [n, V]`, in the chunks whose largest are the largest."""
    count, words = logits.shape
    if words % CHUNK or words // CHUNK < LIKELY:
        return logits.topk(min(LIKELY, words)).indices
    chunks = logits.view(count, -1, CHUNK)
    among = chunks.amax(2).topk(LIKELY).indices
    some = chunks.gather(1, among[:, :, None].expand(-1, -1, CHUNK)).flatten(1)
    places = some.topk(LIKELY).indices
    return among.gather(1, places // CHUNK) * CHUNK + places % CHUNK


def chosen(
    logits: Tensor, hidden: Tensor, matrix: Tensor, choosers: Sequence[Chooser]
) -> list[tuple[int, float, float]]:
    """For each text its next token, the token's log-probability, and the entropy of what it was chosen from, in nats.

    Args:
        logits: `[n, V]` float32, of generation's head; those that matter are put right in place.
        hidden: `[n, width]` float32, what the head read.
        matrix: the head `[V, width]`.
        choosers: the texts'.
    """
    ids = likely(logits)
    sharpen(logits, hidden, matrix, ids)
    best = logits.gather(1, ids).max(1)
    likeliest = ids.gather(1, best.indices[:, None])
    tokens = likeliest[:, 0].tolist()
    for row, chooser in enumerate(choosers):
        if not chooser.greedy:
            tokens[row] = chooser.draw(logits[row])
    shares = logits.softmax(1)
    # The largest share is never rounded to nothing: the logarithm of the sum follows from it.
    whole = best.values - shares.gather(1, likeliest)[:, 0].log()
    logprobs = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0] - whole
    entropies = whole - torch.linalg.vecdot(shares, logits)
    return list(zip(tokens, logprobs.tolist(), entropies.tolist(), strict=True))
