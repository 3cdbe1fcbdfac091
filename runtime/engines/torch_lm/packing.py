"""Rows of tokens without their padding, ordered by session, and where each goes.

Everything but attention works on `[N, ...]`, one entry a token that is really there. Attention puts them into
`[B, T]`, and low-rank updates into `[S, M]`, a line a session.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acclimate.adapters.language import Ids, TokenRows, parents, scorable

WIDTH = 16
"""Lines are as wide as a multiple of this: what a vector instruction takes at once has no rest then, so that an entry's
sums are the same, bit for bit, however long the longest line is."""
FILLING = 1 / 12
"""Most entries, for each that is needed, that rows are filled up with where that makes lines full."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Entries `[N]` as lines `[L, W]` of unequal length, filled up on the right with copies of some entry.

    `into [L * W]`, `back [N]` and `rest`, the places that are filled up, are None where the lines are full, so that
    they are the entries as they lie.
    """

    count: int
    width: int
    into: Tensor | None
    back: Tensor | None
    rest: Tensor | None = None

    @classmethod
    def of(cls, lengths: Ids, device: torch.device) -> Lines:
        """Lines of these lengths, one after the other."""
        count, width = len(lengths), -(-int(lengths.max(initial=0)) // WIDTH) * WIDTH
        if (lengths == width).all():
            return cls(count, width, None, None)
        within = np.arange(width) < lengths[:, None]
        into = np.zeros((count, width), np.int64)
        into[within] = np.arange(int(lengths.sum()))
        indices = (into.reshape(-1), np.flatnonzero(within), np.flatnonzero(~within))
        tensors = (torch.from_numpy(each).to(device) for each in indices)
        return cls(count, width, *tensors)

    def lined(self, entries: Tensor) -> Tensor:
        """`[N, ...] -> [L, W, ...]`."""
        if self.into is not None:
            entries = entries.index_select(0, self.into)
        return entries.reshape(self.count, self.width, *entries.shape[1:])

    def entries(self, lines: Tensor) -> Tensor:
        """`[L, W, ...] -> [N, ...]`."""
        flat = lines.flatten(0, 1)
        return flat if self.back is None else flat.index_select(0, self.back)


@dataclass(frozen=True, slots=True)
class Packed:
    """What the forward pass reads, and what is scored.

    Attributes:
        ids: `[N]` tokens that are read; positions: `[N]` where they stand in their rows.
        rows: lines of the rows, for attention.
        seen: `[L, 1, W, W]` which tokens of its row each sees, where rows are trees; None: those before it, and itself.
        sessions: lines of the sessions, for low-rank updates.
        present: `[L]` which rows of theta these are.
        scored: `[K]` entries after which a token is scored; targets: `[K]` that token.
        where: `(row [K], position [K])` of the tokens scored, as indices of `[B, T]`.
    """

    ids: Tensor
    positions: Tensor
    rows: Lines
    seen: Tensor | None
    sessions: Lines
    present: np.ndarray
    scored: Tensor
    targets: Tensor
    where: tuple[np.ndarray, np.ndarray]


def pack(rows: TokenRows, device: torch.device) -> Packed:
    """Drop what no score depends on: the padding, and each row from its last scored token on."""
    _, width = rows.ids.shape
    before, wanted = parents(rows), scorable(rows)
    reversed_ = wanted[:, ::-1]
    read = np.where(wanted.any(1), width - 1 - reversed_.argmax(1), 0)
    order = np.argsort(rows.group, kind="stable")
    order = order[read[order] > 0]
    real, group = read[order], rows.group[order]
    lengths = _filled(real, group)
    line, position = np.nonzero(np.arange(lengths.max(initial=0)) < lengths[:, None])
    position = np.minimum(position, real[line] - 1)
    present, counts = np.unique(group[line], return_counts=True)
    scored_line, scored_position = np.nonzero(wanted[order])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(lengths) else lengths
    where = (order[scored_line], scored_position)
    lies = starts[scored_line] + before[where]
    seen = None if rows.parent is None or not len(order) else _ancestors(before[order], real)
    depth = position if seen is None else seen[line, position].sum(axis=1) - 1

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(device)

    return Packed(
        ids=tensor(rows.ids[order[line], position]),
        positions=tensor(depth),
        rows=Lines.of(lengths, device),
        seen=None if seen is None else torch.from_numpy(seen[:, None]).to(device),
        sessions=Lines.of(counts, device),
        present=present,
        scored=tensor(lies),
        targets=tensor(rows.ids[where]),
        where=where,
    )


def _filled(lengths: Ids, group: Ids) -> Ids:
    """How many entries each row takes.

    Where rows are nearly equal they are all filled up, each with copies of its last token, which no score depends on:
    lines are full then, and nothing has to be laid out and brought back in every layer.
    """
    width = -(-int(lengths.max(initial=0)) // WIDTH) * WIDTH
    even = len(np.unique(np.unique(group, return_counts=True)[1])) == 1
    if even and len(lengths) * width <= (1 + FILLING) * lengths.sum():
        return np.full(len(lengths), width, np.int64)
    return lengths


def _ancestors(before: Ids, lengths: Ids) -> np.ndarray:
    """Which tokens `[L, W, W]` each comes after, itself among them; what fills up a row sees itself."""
    count, width = len(before), -(-int(lengths.max()) // WIDTH) * WIDTH
    seen, each = np.zeros((count, width, width), np.bool_), np.arange(count)
    for t in range(lengths.max()):
        follows = (before[:, t] >= 0) & (t < lengths)
        seen[:, t] = seen[each, np.maximum(before[:, t], 0)] & follows[:, None]
        seen[:, t, t] = True
    itself = np.arange(width)
    seen[:, itself, itself] = True
    return seen


def parts(rows: TokenRows, limit: int) -> list[np.ndarray]:
    """Indices of rows, session by session, in parts of at most `limit` tokens where single rows are shorter."""
    order = np.argsort(rows.group, kind="stable")
    made: list[list[int]] = [[]]
    held = 0
    for row in order:
        tokens = int(rows.lengths[row])
        if made[-1] and held + tokens > limit:
            made.append([])
            held = 0
        made[-1].append(int(row))
        held += tokens
    return [np.array(part, np.intp) for part in made if part]


def taken(rows: TokenRows, part: np.ndarray) -> TokenRows:
    """Some of the rows, no wider than they need be."""
    width = max(int(rows.lengths[part].max(initial=1)), 1)
    scored = None if rows.scored is None else rows.scored[part, :width]
    parent = None if rows.parent is None else rows.parent[part, :width]
    return TokenRows(rows.ids[part, :width], rows.lengths[part], rows.group[part], scored, parent)
