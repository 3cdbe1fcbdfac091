"""Low-rank updates of one product, each session's on its own entries, and their gradients, by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.runtime.engines.torch_lm.arena import Arena
from acclimate.runtime.engines.torch_lm.lowrank import Update
from acclimate.runtime.engines.torch_lm.packing import Lines


def add(
    arena: Arena, lines: Lines, update: Update, scale: float, x: Tensor, onto: Tensor, sizes: list[int], down: Tensor
) -> None:
    """Add `scale * (x A^T) B^T` to what the base makes of `x [N, in]`.

    Args:
        arena: for what is needed on the way.
        lines: of the sessions.
        update: of the projections that read x.
        scale: what updates count.
        x: float32.
        onto: `[N, out]` float32, of all these projections side by side.
        sizes: widths of the projections.
        down: `[S, M, R]`, where `scale * x A^T` is kept for `pull`.
    """
    with arena.scratch():
        torch.bmm(_lined(arena, lines, x), update.a.mT, out=down).mul_(scale)
        for span, rank, b, _ in _members(update, update, sizes):
            _add_product(arena, lines, onto[:, span], down[..., rank], b.mT)


def pull(
    arena: Arena,
    lines: Lines,
    update: Update,
    scale: float,
    x: Tensor,
    down: Tensor,
    given: Tensor,
    sizes: list[int],
    into: Update,
    onto: Tensor | None,
) -> None:
    """The gradients of `add`.

    Args:
        arena: for what is needed on the way.
        lines: of the sessions.
        update: of the projections that read x.
        scale: what updates count.
        x: `[N, in]` float32, as it was.
        down: what `add` left there.
        given: `[N, out]` float32, the gradient of the result.
        sizes: widths of the projections.
        into: where the gradient of the update goes.
        onto: `[N, in]` float32, to which the gradient of x is added; None: it is not needed.
    """
    with arena.scratch():
        lined = _lined(arena, lines, given)
        if lines.rest is not None:
            lined.flatten(0, 1).index_fill_(0, lines.rest, 0)
        of_down = arena.empty(*down.shape)
        for span, rank, b, of_b in _members(update, into, sizes):
            torch.bmm(down[..., rank].mT, lined[..., span], out=of_b.mT)
            torch.bmm(lined[..., span], b, out=of_down[..., rank])
        of_down.mul_(scale)
        torch.bmm(of_down.mT, _lined(arena, lines, x), out=into.a)
        if onto is not None:
            _add_product(arena, lines, onto, of_down, update.a)


def _members(update: Update, into: Update, sizes: list[int]) -> list[tuple[slice, slice, Tensor, Tensor]]:
    """Of each projection that is updated: its columns of the product, its ranks, its B, and its place in `into`."""
    members, start, done = [], 0, 0
    for size, b, of_b in zip(sizes, update.b, into.b, strict=True):
        if b is not None and of_b is not None:
            members.append((slice(start, start + size), slice(done, done + b.shape[-1]), b, of_b))
            done += b.shape[-1]
        start += size
    return members


def _lined(arena: Arena, lines: Lines, entries: Tensor) -> Tensor:
    """`[N, C] -> [S, M, C]`; a view where the lines are full."""
    if lines.into is not None:
        laid = arena.empty(len(lines.into), entries.shape[1], dtype=entries.dtype)
        entries = torch.index_select(entries, 0, lines.into, out=laid)
    return entries.view(lines.count, lines.width, -1)


def _add_product(arena: Arena, lines: Lines, onto: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the entries of `left [S, M, r] @ right [S, r, C]` to `[N, C]`."""
    if lines.back is None:
        onto.unflatten(0, (lines.count, lines.width)).baddbmm_(left, right)
        return
    product = torch.bmm(left, right, out=arena.empty(lines.count, lines.width, onto.shape[1]))
    entries = arena.empty(*onto.shape)
    onto.add_(torch.index_select(product.flatten(0, 1), 0, lines.back, out=entries))
