"""Theta of the texts being generated, a row for each, as the passes of generation read it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from acclimate.adapters.layout import Float
from acclimate.runtime.engines.torch_lm.generating import Added, Additions
from acclimate.runtime.engines.torch_lm.llama import GATE_UP, Base
from acclimate.runtime.engines.torch_lm.lowrank import GROUPS, Piece, Plan


class Bank:
    """Rows `[n, P]`, float32: of each tensor of theta A as it is, B `alpha / rank` times what it was.

    `wide`: theta has updates of gate or up.
    """

    def __init__(self, base: Base, plan: Plan, rows: int) -> None:
        self._base, self._pieces = base, plan.pieces
        device = base.embedding.device
        self._held = torch.zeros(rows, plan.layout.size, device=device)
        self._order = plan.order.to(device)
        sizes = [
            torch.full((piece.end - piece.start,), plan.scale if piece.member >= 0 else 1.0) for piece in self._pieces
        ]
        self._sizes = torch.cat(sizes).to(device)
        self.wide = any(piece.group == GATE_UP for piece in self._pieces)
        self._added: dict[tuple[int, int], Additions] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, row: int, theta: Float) -> None:
        """The text of a row has this theta `[P]`."""
        mine = torch.from_numpy(np.array(theta, np.float32)).to(self._held.device)
        self._held[row] = mine[self._order].mul_(self._sizes)

    def move(self, source: int, target: int) -> None:
        """A text changes its row."""
        self._held[target] = self._held[source]

    def added(self, first: int, end: int) -> Additions:
        """What is added for these rows, as views that stay true when rows change."""
        if (first, end) not in self._added:
            rows = self._held[first:end]
            of_group: dict[tuple[int, int], list[Piece]] = {}
            for piece in self._pieces:
                of_group.setdefault((piece.layer, piece.group), []).append(piece)
            self._added[first, end] = tuple(
                tuple(self._one(rows, group, of_group.get((layer, group))) for group in range(len(GROUPS)))
                for layer in range(self._base.shape.layers)
            )
        return self._added[first, end]

    def _one(self, rows: Tensor, group: int, pieces: list[Piece] | None) -> Added | None:
        if pieces is None:
            return None
        outs = [self._base.shape.projections[name][0] for name in GROUPS[group]]
        ends = np.cumsum(outs).tolist()
        down, *ups = pieces
        a = rows[:, down.start : down.end].unflatten(1, down.shape).mT
        b = (
            (ends[up.member] - outs[up.member], ends[up.member], rows[:, up.start : up.end].unflatten(1, up.shape))
            for up in ups
        )
        return Added(a, tuple(b))
