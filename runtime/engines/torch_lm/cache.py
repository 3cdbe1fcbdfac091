"""Keys and values of the texts being generated, a row for each, and attention over them."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from acclimate.runtime.engines.torch_lm.llama import Attention, Base

BLOCK = 64
"""Lengths that attention looks at are multiples of this, so that a text's sums do not depend on its company."""
FIRST = 256


class Cache:
    """`keys` and `values` `[layers, rows, kv_heads, capacity, head]`; the capacity doubles as texts need it."""

    def __init__(self, base: Base, rows: int, context: int) -> None:
        shape = base.shape
        self._most = -(-context // BLOCK) * BLOCK
        self._groups = shape.heads // shape.kv_heads
        size = (2, shape.layers, rows, shape.kv_heads, min(FIRST, self._most), shape.head)
        self._held = torch.zeros(size, dtype=base.working, device=base.embedding.device)

    @property
    def bytes(self) -> int:
        """Memory it occupies now."""
        return self._held.nbytes

    def reserve(self, length: int) -> None:
        """Have room for texts of this length."""
        capacity = self._held.shape[4]
        if length <= capacity:
            return
        wanted = min(max(2 * capacity, -(-length // BLOCK) * BLOCK), self._most)
        wider = self._held.new_zeros((*self._held.shape[:4], wanted, self._held.shape[5]))
        wider[..., :capacity, :] = self._held
        self._held = wider

    def shrink(self) -> None:
        """Give back what long texts needed, once there are none."""
        if self._held.shape[4] > FIRST:
            self._held = self._held[..., :FIRST, :].clone()

    def move(self, source: int, target: int, length: int) -> None:
        """A text of this length changes its row."""
        self._held[:, :, target, :, :length] = self._held[:, :, source, :, :length]

    def one_each(self, positions: Tensor, longest: int) -> Attention:
        """For one new token of each of the first rows, at `positions [n]`."""
        count = len(positions)
        rows = torch.arange(count, device=positions.device)
        seen = min(-(-longest // BLOCK) * BLOCK, self._held.shape[4])
        visible = torch.arange(seen, device=positions.device) <= positions[:, None]
        mask = torch.zeros(visible.shape, dtype=self._held.dtype, device=positions.device)
        mask = mask.masked_fill_(~visible, -torch.inf)[:, None, None]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = self._held[0, layer], self._held[1, layer]
            keys[rows, :, positions], values[rows, :, positions] = key, value
            # Query heads that share a key are so many queries to it.
            q = query.unflatten(1, (-1, self._groups))
            k, v = keys[:count, :, :seen], values[:count, :, :seen]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).flatten(1)

        return attend

    def stretch(self, row: int, start: int, length: int) -> Attention:
        """For so many new tokens of one row."""
        end = start + length
        mask = None
        if start:
            mask = torch.ones(length, end, dtype=torch.bool, device=self._held.device).tril_(start)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = self._held[0, layer, row], self._held[1, layer, row]
            keys[:, start:end], values[:, start:end] = key.transpose(0, 1), value.transpose(0, 1)
            k, v = (part[None, :, :end].repeat_interleave(self._groups, 1) for part in (keys, values))
            q = query.transpose(0, 1)[None]
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
            return mixed[0].transpose(0, 1).flatten(1)

        return attend
