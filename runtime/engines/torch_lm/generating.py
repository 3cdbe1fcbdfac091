"""The forward pass of generation: a few tokens of many texts, in few calls, without gradients.

The sums are those of `llama.hidden`. A pass of a few rows reads the matrices once, which takes about as long as it takes
torch to make the hundreds of small calls between them; so those work in place, in tensors and views that all layers
share. What is computed of a token does not depend on what else is read: products take rows one by one (`Weight.few`),
low-rank updates and attention go text by text, and the rest is done number by number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from acclimate.runtime.engines.torch_lm.llama import DOWN, GATE_UP, OUT, QKV, Base, Shape
from acclimate.runtime.engines.torch_lm.lowrank import GROUPS, Updates
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
        scale: what updates are multiplied by.
        long: there are many entries, all of one text: products are those of the dense matrices.
    """

    ids: Tensor
    positions: Tensor
    adapted: tuple[Adapted, ...]
    scale: float
    long: bool = False


class Remembering(Protocol):
    """Keeps keys and values of the new tokens, and mixes values over what each may see."""

    def __call__(self, layer: int, query: Tensor, new: Tensor) -> Tensor:
        """`[N, heads, head]`, keys and values `[N, 2 kv_heads, head]` -> `[N, heads * head]`."""


def additions(updates: Updates, shape: Shape) -> Additions:
    """Updates as the pass reads them; views."""
    layers: list[tuple[Added | None, ...]] = []
    for groups in updates:
        of_layer: list[Added | None] = []
        for names, update in zip(GROUPS, groups, strict=True):
            end, parts = 0, []
            for name, b in zip(names, () if update is None else update.b, strict=update is not None):
                first, end = end, end + shape.projections[name][0]
                if b is not None:
                    parts.append((first, end, b.mT))
            of_layer.append(None if update is None else Added(update.a.mT, tuple(parts)))
        layers.append(tuple(of_layer))
    return tuple(layers)


def read(base: Base, given: Given, remember: Remembering) -> Tensor:
    """What the head reads `[N, width]`, float32."""
    shape, working = base.shape, base.working
    rotated = shape.heads + shape.kv_heads
    x = F.embedding(given.ids, base.embedding).float()
    mixed = x.new_empty(len(x), (rotated + shape.kv_heads) * shape.head)
    heads = mixed.view(len(x), -1, shape.head)
    query, new = heads[:, : shape.heads], heads[:, shape.heads :]
    turned, turns = torch.view_as_complex(heads[:, :rotated].unflatten(2, (-1, 2))), base.turns[given.positions]
    times = _densely if given.long else _row_by_row
    for number, layer in enumerate(base.layers):
        normed = _normed(x, layer.before_attention, shape.epsilon)
        mixed.copy_(times(layer.groups[QKV], normed.to(working)))
        if layer.bias is not None:
            mixed.add_(layer.bias)
        _add(given, number, QKV, normed, mixed)
        turned.mul_(turns)
        seen = remember(number, query.to(working), new.to(working))
        x.add_(times(layer.groups[OUT], seen))
        _add(given, number, OUT, seen, x)
        normed = _normed(x, layer.before_inner, shape.epsilon)
        both = times(layer.groups[GATE_UP], normed.to(working))
        if any(part.additions[number][GATE_UP] is not None for part in given.adapted):
            both = both.float()
            _add(given, number, GATE_UP, normed, both)
        inner = F.silu(both[:, : shape.inner]).mul_(both[:, shape.inner :])
        x.add_(times(layer.groups[DOWN], inner.to(working)))
        _add(given, number, DOWN, inner, x)
    return _normed(x, base.norm, shape.epsilon)


def _row_by_row(weight: Weight, x: Tensor) -> Tensor:
    return weight.few(x)


def _densely(weight: Weight, x: Tensor) -> Tensor:
    return F.linear(x, weight.dense())


def _normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """`F.rms_norm`, which takes twice the calls on a processor."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x.mul(size.square_().div_(x.shape[1]).add_(epsilon).rsqrt_()).mul_(weight)


def _add(given: Given, layer: int, group: int, x: Tensor, out: Tensor) -> None:
    for part in given.adapted:
        added = part.additions[layer][group]
        if added is None:
            continue
        rows = out[part.first : part.end]
        down = torch.bmm(x[part.first : part.end].float().view(part.texts, -1, x.shape[1]), added.a)
        for (first, end, b), some in zip(added.b, down.split(down.shape[2] // len(added.b), 2), strict=True):
            rows[:, first:end].view(part.texts, -1, end - first).baddbmm_(some, b, alpha=given.scale)
