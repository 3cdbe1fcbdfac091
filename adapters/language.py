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
    """Token ids `[B, T]`, padded on the right; `lengths [B]`; `group [B]`: which row of `theta [S, P]` serves each.

    `scored [B, T]` are the tokens whose scores are wanted, None: all. The others score zero and cost less: no logits
    are computed for them, and nothing at all after the last one of a row.

    With `parent [B, T]` a row is a tree: token `t` comes after token `parent[b, t] < t`, or after nothing where that is
    -1; it sees its ancestors only, and its place is their number. Texts that begin alike share what they begin with.
    None: every token comes after the one to its left.
    """

    ids: Ids
    lengths: Ids
    group: NDArray[np.intp]
    scored: NDArray[np.bool_] | None = None
    parent: Ids | None = None

    @property
    def tokens(self) -> int:
        """Tokens without the padding."""
        return int(self.lengths.sum())


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Of each token given those before it: `logprob [B, T]` and `entropy [B, T]` in nats.

    Zero where there is nothing to score: where nothing comes before, beyond a row's length, and where no score is
    wanted. Cotangents have the same form.
    """

    logprob: Float
    entropy: Float


def token_rows(sequences: list[Ids], group: list[int], pad: int = 0, first: list[int] | None = None) -> TokenRows:
    """Pad sequences of ids to one length.

    Args:
        sequences: B of them, each `[t]` with t > 0.
        group: for each, its row of theta.
        pad: the id that fills up.
        first: for each, the first token whose score is wanted, as where a completion begins; None: all are.
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    ids = np.full((len(sequences), int(lengths.max(initial=1))), pad, np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    columns = np.arange(ids.shape[1])
    scored = None if first is None else (columns >= np.array(first)[:, None]) & (columns < lengths[:, None])
    return TokenRows(ids, lengths, np.array(group, np.intp), scored)


def parents(rows: TokenRows) -> Ids:
    """Which token `[B, T]` each comes after; -1: none."""
    if rows.parent is not None:
        return rows.parent
    return np.broadcast_to(np.arange(-1, rows.ids.shape[1] - 1), rows.ids.shape)


def scorable(rows: TokenRows) -> NDArray[np.bool_]:
    """Where `[B, T]` there is a token that comes after another, and its score is wanted."""
    result: NDArray[np.bool_] = (np.arange(rows.ids.shape[1]) < rows.lengths[:, np.newaxis]) & (parents(rows) >= 0)
    return result if rows.scored is None else result & rows.scored
