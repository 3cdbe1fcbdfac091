"""Attention of whole rows to themselves while learning, forward and backward.

Queries, keys and values of a token lie side by side, `[N, heads + 2 kv_heads, head]`, the queries in an order in which
those that share a key are neighbours. One gather puts them into lines, one row of a matrix for each (line, head,
place), and one brings them back, so that attention itself is a few products of batches of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from acclimate.runtime.engines.torch_lm.arena import Arena
from acclimate.runtime.engines.torch_lm.llama import Shape
from acclimate.runtime.engines.torch_lm.packing import Lines

NARROW = 128
"""Widest lines whose attention is computed plainly: its matrices are kept, `heads * width` numbers a token. On a
processor it takes a third of the fused kernel's time there."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a token's heads are in lines, and back.

    Attributes:
        lines: of the rows.
        lay: `[L * (heads + 2 kv_heads) * W]` rows of the tokens' heads, those of queries first, then keys, then values.
        unlay: `[N * (heads + 2 kv_heads)]` rows of the lines.
        lay_mixed: `[L * heads * W]` and unlay_mixed `[N * heads]`, the same of what comes out.
        filled: `[F]` rows of the lines of what comes out that no token has; None: there are none.
        mask: `[1 or L * kv_heads, groups * W, W]`, 0 or minus infinity; None: the lines are wide.
        seen: `[L, 1, W, W]` which tokens each sees, where rows are trees.
    """

    lines: Lines
    lay: Tensor
    unlay: Tensor
    lay_mixed: Tensor
    unlay_mixed: Tensor
    filled: Tensor | None
    mask: Tensor | None
    seen: Tensor | None


def places(shape: Shape, lines: Lines, seen: Tensor | None, device: torch.device) -> Places:
    """For rows in these lines."""
    slots, heads, kv = lines.count * lines.width, shape.heads, shape.kv_heads
    back = torch.arange(slots, device=device) if lines.back is None else lines.back
    token = torch.arange(slots, device=device) if lines.into is None else lines.into
    line, place = back // lines.width, back % lines.width
    lay, unlay, start = [], [], 0
    for first, count in ((0, heads), (heads, kv), (heads + kv, kv)):
        head = torch.arange(count, device=device)
        laid = token.view(lines.count, 1, lines.width) * (heads + 2 * kv) + (first + head)[:, None]
        lay.append(laid.reshape(-1))
        unlay.append(start + (line[:, None] * count + head) * lines.width + place[:, None])
        start += len(lay[-1])
    head = torch.arange(heads, device=device)
    filled = None
    if lines.rest is not None:
        line, place = lines.rest // lines.width, lines.rest % lines.width
        filled = ((line[:, None] * heads + head) * lines.width + place[:, None]).reshape(-1)
    return Places(
        lines=lines,
        lay=torch.cat(lay),
        unlay=torch.cat(unlay, 1).reshape(-1),
        lay_mixed=(token.view(lines.count, 1, lines.width) * heads + head[:, None]).reshape(-1),
        unlay_mixed=unlay[0].reshape(-1),
        filled=filled,
        mask=_mask(shape, lines, seen, device) if lines.width <= NARROW else None,
        seen=seen,
    )


def _mask(shape: Shape, lines: Lines, seen: Tensor | None, device: torch.device) -> Tensor:
    groups = shape.heads // shape.kv_heads
    if seen is None:
        seen = torch.ones(1, 1, lines.width, lines.width, dtype=torch.bool, device=device).tril()
    else:
        seen = seen.expand(-1, shape.kv_heads, -1, -1).flatten(0, 1)[:, None]
    mask = torch.zeros(seen.shape, device=device).masked_fill_(~seen, -torch.inf)
    return mask.expand(-1, groups, -1, -1).flatten(1, 2)


@dataclass(frozen=True, slots=True)
class Narrow:
    """Of narrow lines: `shares [L * kv_heads, groups * W, W]` and all heads in lines, in the working precision."""

    shares: Tensor
    laid: Tensor


@dataclass(frozen=True, slots=True)
class Wide:
    """Of wide lines: torch's own tape of this one function."""

    inputs: tuple[Tensor, Tensor, Tensor]
    output: Tensor


Mixing = Narrow | Wide


def attend(arena: Arena, shape: Shape, at: Places, heads: Tensor, mixed: Tensor, *, keep: bool) -> Mixing:
    """Mix values.

    Args:
        arena: for what is kept.
        shape: of the model.
        at: where heads go.
        heads: `[N, heads + 2 kv_heads, head]`, turned, float32.
        mixed: `[N, heads * head]` in the working precision, where the result goes.
        keep: `pull` will be called.

    Returns:
        What `pull` needs.
    """
    if at.mask is None:
        return _wide(shape, at, heads, mixed, keep)
    batch, rows, width = at.lines.count * shape.kv_heads, at.mask.shape[1], at.lines.width
    laid = arena.empty(len(at.lay), shape.head, dtype=mixed.dtype)
    shares = arena.empty(batch, rows, width, dtype=mixed.dtype)
    with arena.scratch():
        # Differences of scores are what counts, so they are taken in float32.
        exact = arena.empty(len(at.lay), shape.head)
        torch.index_select(heads.reshape(-1, shape.head), 0, at.lay, out=exact)
        laid.copy_(exact)
        query, key, _ = _split(shape, at, exact)
        value = _split(shape, at, laid)[2]
        scores = arena.empty(batch, rows, width)
        torch.baddbmm(at.mask, query, key.mT, alpha=shape.head**-0.5, out=scores)
        shares.copy_(torch.softmax(scores, -1, out=arena.empty(batch, rows, width)))
        out = arena.empty(batch, rows, shape.head, dtype=mixed.dtype)
        torch.bmm(shares, value, out=out)
        torch.index_select(out.view(-1, shape.head), 0, at.unlay_mixed, out=mixed.view(-1, shape.head))
    return Narrow(shares, laid)


def pull(arena: Arena, shape: Shape, at: Places, kept: Mixing, gradient: Tensor, heads: Tensor) -> None:
    """The gradient of turned queries, keys and values.

    Args:
        arena: for what is needed on the way.
        shape: of the model.
        at: where heads go.
        kept: what `attend` returned.
        gradient: `[N, heads * head]` of its result, in the working precision.
        heads: `[N, heads + 2 kv_heads, head]` in that precision, where the result goes.
    """
    with arena.scratch():
        given = arena.empty(len(at.lay_mixed), shape.head, dtype=gradient.dtype)
        torch.index_select(gradient.view(-1, shape.head), 0, at.lay_mixed, out=given)
        if at.filled is not None:
            given.index_fill_(0, at.filled, 0)
        back = arena.empty(len(at.lay), shape.head, dtype=gradient.dtype)
        if isinstance(kept, Wide):
            parts = torch.autograd.grad(kept.output, kept.inputs, given.view(kept.output.shape).to(kept.output.dtype))
            torch.cat([part.reshape(-1, shape.head).to(back.dtype) for part in parts], out=back)
        else:
            _pull_narrow(arena, shape, at, kept, given, back)
        torch.index_select(back, 0, at.unlay, out=heads.view(-1, shape.head))


def _pull_narrow(arena: Arena, shape: Shape, at: Places, kept: Narrow, given: Tensor, back: Tensor) -> None:
    query, key, value = _split(shape, at, kept.laid)
    of_query, of_key, of_value = _split(shape, at, back)
    shares, given = kept.shares, given.view(query.shape)
    torch.bmm(shares.mT, given, out=of_value)
    slopes = torch.bmm(given, value.mT, out=arena.empty(*shares.shape, dtype=shares.dtype))
    slopes = torch._softmax_backward_data(slopes, shares, -1, shares.dtype).mul_(shape.head**-0.5)
    torch.bmm(slopes, key, out=of_query)
    torch.bmm(slopes.mT, query, out=of_key)


def _wide(shape: Shape, at: Places, heads: Tensor, mixed: Tensor, keep: bool) -> Wide:
    laid = heads.reshape(-1, shape.head).index_select(0, at.lay)
    # The processor's kernel takes half the time, forward and backward, in float32.
    laid = laid.to(mixed.dtype) if laid.is_cuda else laid
    groups = shape.heads // shape.kv_heads
    query, key, value = (
        part.view(at.lines.count, -1, at.lines.width, shape.head).requires_grad_(keep)
        for part in _split(shape, at, laid)
    )
    with torch.set_grad_enabled(keep):
        output = F.scaled_dot_product_attention(
            query,
            key.repeat_interleave(groups, 1),
            value.repeat_interleave(groups, 1),
            attn_mask=at.seen,
            is_causal=at.seen is None,
        )
    lines = output.detach().reshape(-1, shape.head).to(mixed.dtype)
    torch.index_select(lines, 0, at.unlay_mixed, out=mixed.view(-1, shape.head))
    return Wide((query, key, value), output)


def _split(shape: Shape, at: Places, laid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries `[L * kv_heads, groups * W, head]`, keys and values `[L * kv_heads, W, head]`."""
    flat, width = at.lines.count * shape.kv_heads, at.lines.width
    others = flat * width
    query, key, value = laid.split([len(laid) - 2 * others, others, others])
    return query.view(flat, -1, shape.head), key.view(flat, width, -1), value.view(flat, width, -1)
