"""What passes between a language model's engine and whatever learns: rows of tokens, and scores of them.

Logits over a vocabulary are too wide to be a cotangent. A language model's outputs are per-token scores, the
log-probability of the token that is there and the entropy of the distribution it was drawn from; objectives are
functions of these, and cotangents have their shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float

Ids = NDArray[np.int64]
"""Token ids."""


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Token ids `[B, T]`, padded on the right; `lengths [B]`; `group [B]`: which row of `theta [S, P]` serves each."""

    ids: Ids
    lengths: Ids
    group: NDArray[np.intp]

    @property
    def tokens(self) -> int:
        """Tokens without the padding."""
        return int(self.lengths.sum())


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Of each token given those before it: `logprob [B, T]` and `entropy [B, T]` in nats.

    Zero where there is nothing to score: at position 0, and beyond a row's length. Cotangents have the same form.
    """

    logprob: Float
    entropy: Float


def token_rows(sequences: list[Ids], group: list[int], pad: int = 0) -> TokenRows:
    """Pad sequences of ids to one length.

    Args:
        sequences: B of them, each `[t]` with t > 0.
        group: for each, its row of theta.
        pad: the id that fills up.
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    ids = np.full((len(sequences), int(lengths.max(initial=1))), pad, np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    return TokenRows(ids, lengths, np.array(group, np.intp))
