"""The forward pass of generation: a few tokens of many texts, in few calls, without gradients.

The sums are those of `learning_pass`. A pass of a few rows reads the matrices once, and that takes no longer than the
hundreds of small calls between them; so those work in place, in tensors and views that all layers share. What is
computed of a token does not depend on what else is read: products take rows one by one (`Weight.few`), low-rank updates
and attention go text by text, and the rest is done number by number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from acclimate.runtime.engines.torch_lm.llama import DOWN, GATE_UP, OUT, QKV, Base
from acclimate.runtime.engines.torch_lm.weights import Weight


@dataclass(frozen=True, slots=True)
class Added:
    """What is added to one product of a layer: `(x a) b` into some columns, for each of L texts.

    Attributes:
        a: `[L, in, R]`.
        b: `(first, end, [L, r, out])` for each projection that is updated, by the columns it takes.
    """

    a: Tensor
    b: tuple[tuple[int, int, Tensor], ...]


Additions = tuple[tuple[Added | None, ...], ...]
"""For every layer, of every group."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """Entries of a pass that belong to `texts` texts, equally many each, and what is added for them."""

    first: int
    end: int
    texts: int
    additions: Additions


@dataclass(frozen=True, slots=True)
class Given:
    """What is read.

    Attributes:
        ids: `[N]`; positions: `[N]` where they stand in their texts.
        adapted: the texts that have updates.
        wide: some texts of this model have updates of gate and up, so of all it is float32 what becomes of those.
        long: there are many entries, all of one text: products are those of the dense matrices.
    """

    ids: Tensor
    positions: Tensor
    adapted: tuple[Adapted, ...]
    wide: bool
    long: bool = False


class Remembering(Protocol):
    """Keeps keys and values of the new tokens, and mixes values over what each may see."""

    def __call__(self, layer: int, query: Tensor, new: Tensor) -> Tensor:
        """`[N, heads, head]`, keys and values `[N, 2 kv_heads, head]` -> `[N, heads * head]`."""


def read(base: Base, given: Given, remember: Remembering) -> Tensor:
    """What the head reads `[N, width]`, float32."""
    shape, working = base.shape, base.working
    rotated = shape.heads + shape.kv_heads
    x = F.embedding(given.ids, base.embedding).float()
    mixed = x.new_empty(len(x), (rotated + shape.kv_heads) * shape.head)
    heads = mixed.view(len(x), -1, shape.head)
    turned, turns = torch.view_as_complex(heads[:, :rotated].unflatten(2, (-1, 2))), base.turns[given.positions]
    rounded = torch.empty(heads.shape, dtype=working, device=x.device)
    query, new = rounded.split((shape.heads, 2 * shape.kv_heads), 1)
    narrow = torch.empty(x.shape, dtype=working, device=x.device)
    # A number from Python takes longer than the sums of a row.
    epsilon = x.new_full((1, 1), shape.epsilon)
    times = _densely if given.long else _row_by_row
    add_qkv, add_out, add_down = (_adding(given, *to) for to in ((QKV, mixed), (OUT, x), (DOWN, x)))
    for number, layer in enumerate(base.layers):
        normed = _normed(x, layer.before_attention, epsilon)
        mixed.copy_(times(layer.groups[QKV], narrow.copy_(normed)))
        if layer.bias is not None:
            mixed.add_(layer.bias)
        add_qkv(number, normed)
        turned.mul_(turns)
        rounded.copy_(heads)
        seen = remember(number, query, new)
        x.add_(times(layer.groups[OUT], seen))
        add_out(number, seen)
        normed = _normed(x, layer.before_inner, epsilon)
        both = times(layer.groups[GATE_UP], narrow.copy_(normed))
        if given.wide:
            both = both.float()
            _adding(given, GATE_UP, both)(number, normed)
        gate, up = both.chunk(2, 1)
        inner = F.silu(gate).mul_(up)
        x.add_(times(layer.groups[DOWN], inner.to(working)))
        add_down(number, inner)
    return _normed(x, base.norm, epsilon)


def _row_by_row(weight: Weight, x: Tensor) -> Tensor:
    return weight.few(x)


def _densely(weight: Weight, x: Tensor) -> Tensor:
    return F.linear(x, weight.dense())


def _normed(x: Tensor, weight: Tensor, epsilon: Tensor) -> Tensor:
    """`F.rms_norm`, which takes twice as long for a few rows on a processor."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x.mul(torch.addcmul(epsilon, size, size, value=1 / x.shape[1]).rsqrt_()).mul_(weight)


Adding = Callable[[int, Tensor], None]
"""Adds what a layer's updates make of `x [N, in]`, the input of its product."""


def _adding(given: Given, group: int, out: Tensor) -> Adding:
    """For a group of every layer, to `out [N, columns]`; views of it are made once, for they take longer than sums."""
    prepared: list[tuple[Adapted, list[Tensor]]] = []
    for part in given.adapted:
        # Updates are of the same projections in every layer.
        added = part.additions[0][group]
        if added is not None:
            rows = out[part.first : part.end].view(part.texts, -1, out.shape[1])
            prepared.append((part, [rows[..., first:end] for first, end, _ in added.b]))

    def add(layer: int, x: Tensor) -> None:
        for part, places in prepared:
            added = part.additions[layer][group]
            assert added is not None  # noqa: S101 - it is there in the first layer
            own = x if len(x) == part.end - part.first else x[part.first : part.end]
            down = torch.bmm(own.float().view(part.texts, -1, x.shape[1]), added.a)
            downs = down.split(down.shape[2] // len(places), 2)
            for place, (_, _, b), some in zip(places, added.b, downs, strict=True):
                place.add_(torch.bmm(some, b))

    return add
