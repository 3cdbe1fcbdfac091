"""Keys and values of the texts being generated, a row for each, and attention over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from acclimate.runtime.engines.torch_lm.generating import Remembering
from acclimate.runtime.engines.torch_lm.llama import Base

BLOCK = 64
"""Lengths that attention looks at are multiples of this, so that a text's sums do not depend on its company."""
FIRST = 256


class Cache:
    """Keys, then values, `[layers, rows, 2 kv_heads, capacity, head]`; the capacity doubles as texts need it."""

    def __init__(self, base: Base, rows: int, context: int) -> None:
        shape = base.shape
        self._most = -(-context // BLOCK) * BLOCK
        self._kv_heads, self._groups = shape.kv_heads, shape.heads // shape.kv_heads
        size = (shape.layers, rows, 2 * shape.kv_heads, min(FIRST, self._most), shape.head)
        self._held = torch.zeros(size, dtype=base.working, device=base.embedding.device)

    @property
    def bytes(self) -> int:
        """Memory it occupies now."""
        return self._held.nbytes

    def reserve(self, length: int) -> None:
        """Have room for texts of this length."""
        capacity = self._held.shape[3]
        if length <= capacity:
            return
        wanted = min(max(2 * capacity, -(-length // BLOCK) * BLOCK), self._most)
        wider = self._held.new_zeros((*self._held.shape[:3], wanted, self._held.shape[4]))
        wider[..., :capacity, :] = self._held
        self._held = wider

    def shrink(self) -> None:
        """Give back what long texts needed, once there are none."""
        if self._held.shape[3] > FIRST:
            self._held = self._held[..., :FIRST, :].clone()

    def move(self, source: int, target: int, length: int) -> None:
        """A text of this length changes its row."""
        self._held[:, target, :, :length] = self._held[:, source, :, :length]

    def one_each(self, positions: Sequence[int]) -> Remembering:
        """For one new token of each of the first rows, at these positions."""
        count, device, kv = len(positions), self._held.device, self._kv_heads
        seen = min(-(-(max(positions) + 1) // BLOCK) * BLOCK, self._held.shape[3])
        at = torch.tensor(positions, device=device)
        mask = torch.zeros(count, seen, dtype=self._held.dtype, device=device)
        mask = mask.masked_fill_(torch.arange(seen, device=device) > at[:, None], -torch.inf)[:, None, None]
        keep = self._keeper(torch.arange(count, device=device), at)
        keys, values = (part.unbind() for part in self._held[:, :count, :, :seen].split(kv, 2))

        def remember(layer: int, query: Tensor, new: Tensor) -> Tensor:
            keep(layer, new)
            # Query heads that share a key are so many queries to it.
            q = query.view(count, kv, self._groups, -1)
            return F.scaled_dot_product_attention(q, keys[layer], values[layer], attn_mask=mask).flatten(1)

        return remember

    def stretches(self, pieces: Sequence[tuple[int, int, int]]) -> Remembering:
        """For stretches of new tokens, one after the other: `(row, start, length)` of each."""
        device, kv, groups = self._held.device, self._kv_heads, self._groups
        rows = torch.cat([torch.full((length,), row, device=device) for row, _, length in pieces])
        at = torch.cat([torch.arange(start, start + length, device=device) for _, start, length in pieces])
        keep, lengths = self._keeper(rows, at), [length for _, _, length in pieces]
        masks = [_causal(start, length, device) if start else None for _, start, length in pieces]
        held = [self._held[:, row, :, : start + length].unbind() for row, start, length in pieces]

        def remember(layer: int, query: Tensor, new: Tensor) -> Tensor:
            keep(layer, new)
            mixed = []
            for part, seen, mask in zip(query.split(lengths), held, masks, strict=True):
                k, v = (some[None].repeat_interleave(groups, 1) for some in seen[layer].split(kv))
                q = part.transpose(0, 1)[None]
                found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
                mixed.append(found[0].transpose(0, 1).flatten(1))
            return torch.cat(mixed)

        return remember

    def _keeper(self, rows: Tensor, positions: Tensor) -> Callable[[int, Tensor], None]:
        """What puts keys and values `[N, 2 kv_heads, head]` of a layer where they belong."""
        _, _, both, capacity, head = self._held.shape
        lines = torch.arange(both, device=rows.device) + rows[:, None] * both
        places = (lines * capacity + positions[:, None]).view(-1)
        flat = self._held.flatten(1, 3).unbind()

        def keep(layer: int, new: Tensor) -> None:
            flat[layer].index_copy_(0, places, new.reshape(-1, head))

        return keep


def _causal(start: int, length: int, device: torch.device) -> Tensor:
    return torch.ones(length, start + length, dtype=torch.bool, device=device).tril_(start)
