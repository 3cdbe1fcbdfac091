"""The forward pass of learning and scoring, and its backward pass written by hand.

A tape would record some forty small functions a layer, each with tensors of its own; nearly half of a step went into
them. Here a layer is a few large products with in-place arithmetic between, and keeps what its gradient needs and no
more. The model is that of `llama`, and so is its precision: the residual stream and low-rank updates are float32,
products of the base in its working precision. Only updates have gradients: nothing is computed below the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from acclimate.runtime.engines.torch_lm import attending, updating
from acclimate.runtime.engines.torch_lm.arena import Arena
from acclimate.runtime.engines.torch_lm.llama import DOWN, GATE_UP, OUT, QKV, Base
from acclimate.runtime.engines.torch_lm.lowrank import GROUPS, Updates
from acclimate.runtime.engines.torch_lm.packing import Packed


@dataclass(frozen=True, slots=True)
class Kept:
    """What a layer's gradient needs.

    Attributes:
        before: `[N, width]` the residual stream before attention, float32; after: after it.
        sizes: `[N, 1]` what each was multiplied by to be normal.
        mixing: of attention.
        mixed: `[N, heads * head]` what attention gave.
        slopes: `[N, 2 * inner]` the gradients of the inner activations by gate and up.
        inner: `[N, inner]` these activations; used where their projection is updated.
        downs: `[S, M, R]` of each group, what the A of its updates gave.
    """

    before: Tensor
    after: Tensor
    sizes: tuple[Tensor, Tensor]
    mixing: attending.Mixing
    mixed: Tensor
    slopes: Tensor
    inner: Tensor | None
    downs: tuple[Tensor | None, ...]


class LearningPass:
    """One pass over packed rows: `read`, then at most one `pull`, within `torch.no_grad`, in the memory of an arena."""

    def __init__(self, base: Base, packed: Packed, updates: Updates, scale: float, arena: Arena) -> None:
        """For these rows, with updates for each line of the sessions."""
        self._base, self._packed, self._updates, self._scale, self._arena = base, packed, updates, scale, arena
        self._places = attending.places(base.shape, packed.rows, packed.seen, base.embedding.device)
        self._turns = base.turns[packed.positions]
        self._turns_back = self._turns.conj().resolve_conj()
        self._outs = [[base.shape.projections[name][0] for name in names] for names in GROUPS]
        self._heads = arena.empty(len(packed.ids), sum(self._outs[QKV]))
        self._kept: list[Kept] = []
        self._last = self._size = self._heads

    def read(self, *, keep: bool) -> Tensor:
        """What the head reads before each token that is scored `[K, width]`, float32.

        Args:
            keep: `pull` will be called.
        """
        base, arena = self._base, self._arena
        x = arena.empty(len(self._packed.ids), base.shape.width)
        x.copy_(F.embedding(self._packed.ids, base.embedding))
        for number in range(base.shape.layers):
            if keep:
                x = self._layer(number, x, keep=True)
                continue
            with arena.scratch():
                x.copy_(self._layer(number, x, keep=False))
        self._last = x.index_select(0, self._packed.scored)
        read = torch.empty_like(self._last)
        self._size = self._normal(self._last, base.norm, read)
        return read

    def _layer(self, number: int, x: Tensor, *, keep: bool) -> Tensor:
        base, arena, layer, tokens = self._base, self._arena, self._base.layers[number], len(x)
        shape, working = base.shape, base.working
        downs = tuple(self._room(number, group) for group in range(len(GROUPS)))
        mixed = arena.empty(tokens, shape.heads * shape.head, dtype=working)
        after, end = arena.empty(*x.shape), arena.empty(*x.shape)
        both = arena.empty(tokens, 2 * shape.inner, dtype=working)
        inner = arena.empty(tokens, shape.inner, dtype=working) if downs[DOWN] is not None else None
        with arena.scratch():
            normed = arena.empty(*x.shape)
            first = self._normal(x, layer.before_attention, normed)
            self._heads.copy_(self._times(number, QKV, normed))
            if layer.bias is not None:
                self._heads.add_(layer.bias)
            self._update(number, QKV, normed, self._heads, downs[QKV])
        self._turn(self._turns)
        heads = self._heads.view(tokens, -1, shape.head)
        mixing = attending.attend(arena, shape, self._places, heads, mixed, keep=keep)
        with arena.scratch():
            torch.add(x, self._times(number, OUT, mixed), out=after)
            self._update(number, OUT, mixed, after, downs[OUT])
            normed = arena.empty(*x.shape)
            second = self._normal(after, layer.before_inner, normed)
            self._times(number, GATE_UP, normed, both)
            if downs[GATE_UP] is not None:
                exact = arena.empty(*both.shape).copy_(both)
                self._update(number, GATE_UP, normed, exact, downs[GATE_UP])
                both.copy_(exact)
            activated = self._activate(both, inner, keep=keep)
            torch.add(after, self._times(number, DOWN, activated), out=end)
            self._update(number, DOWN, activated, end, downs[DOWN])
        if keep:
            self._kept.append(Kept(x, after, (first, second), mixing, mixed, both, inner, downs))
        return end

    def _activate(self, both: Tensor, inner: Tensor | None, *, keep: bool) -> Tensor:
        """`silu(gate) * up`; of keep, its gradients by gate and up take their place."""
        gate, up = both.chunk(2, 1)
        silu = self._arena.empty(*gate.shape, dtype=both.dtype)
        inner = self._arena.empty(*gate.shape, dtype=both.dtype) if inner is None else inner
        torch.ops.aten.silu.out(gate, out=silu)
        torch.mul(silu, up, out=inner)
        if keep:
            torch.ops.aten.silu_backward.grad_input(up, gate, grad_input=gate)
            up.copy_(silu)
        return inner

    def pull(self, given: Tensor, into: Updates) -> None:
        """Gradients of updates.

        Args:
            given: `[K, width]` float32, the gradient of what was read.
            into: where they go.
        """
        arena, base = self._arena, self._base
        lowest = min(group for group, update in enumerate(self._updates[0]) if update is not None)
        stream = arena.empty(len(self._packed.ids), base.shape.width).zero_()
        last = torch.zeros_like(given)
        self._pull_normal(given, self._last, self._size, base.norm, last)
        stream.index_add_(0, self._packed.scored, last)
        for number in reversed(range(base.shape.layers)):
            with arena.scratch():
                self._pull_layer(number, stream, into, -1 if number else lowest)

    def _pull_layer(self, number: int, stream: Tensor, into: Updates, lowest: int) -> None:
        """Take the gradient of the residual stream from a layer's end to its beginning, and those of its updates."""
        layer, kept, arena = self._base.layers[number], self._kept.pop(), self._arena

        def back(group: int, given: Tensor, x: Tensor | None, norm: Tensor | None = None) -> Tensor | None:
            """The gradient of x, what a group of projections read; None: nothing below needs it."""
            result = None
            if group > lowest:
                dense = layer.groups[group].dense()
                result = arena.empty(len(given), dense.shape[1], dtype=dense.dtype)
                torch.mm(self._in(dense.dtype, given), dense, out=result)
            update, of_update, down = self._updates[number][group], into[number][group], kept.downs[group]
            if update is not None and of_update is not None and down is not None and x is not None:
                result = None if result is None else self._in(torch.float32, result)
                if norm is not None:
                    # What was read is made again: it is little work, and as large as the stream itself.
                    x = torch.mul(x, kept.sizes[group // 2], out=arena.empty(*x.shape)).mul_(norm)
                exact, given = self._in(torch.float32, x), self._in(torch.float32, given)
                lines, outs = self._packed.sessions, self._outs[group]
                updating.pull(arena, lines, update, self._scale, exact, down, given, outs, of_update, result)
            return result

        inner = back(DOWN, stream, kept.inner)
        if inner is None:
            return
        slopes = kept.slopes.unflatten(1, (2, -1)).mul_(inner[:, None]).flatten(1)
        read = back(GATE_UP, slopes, kept.after, layer.before_inner)
        if read is None:
            return
        self._pull_normal(read, kept.after, kept.sizes[1], layer.before_inner, stream)
        mixed = back(OUT, stream, kept.mixed)
        if mixed is None:
            return
        heads = arena.empty(*self._heads.shape, dtype=kept.mixed.dtype)
        attending.pull(arena, self._base.shape, self._places, kept.mixing, self._in(heads.dtype, mixed), heads)
        self._heads.copy_(heads)
        self._turn(self._turns_back)
        read = back(QKV, self._heads, kept.before, layer.before_attention)
        if read is not None:
            self._pull_normal(read, kept.before, kept.sizes[0], layer.before_attention, stream)

    def _room(self, number: int, group: int) -> Tensor | None:
        """For what the A of a group's updates give."""
        update, lines = self._updates[number][group], self._packed.sessions
        return None if update is None else self._arena.empty(lines.count, lines.width, update.a.shape[1])

    def _times(self, number: int, group: int, x: Tensor, out: Tensor | None = None) -> Tensor:
        """A product of the base `[N, in] -> [N, out]`, in the working precision."""
        dense = self._base.layers[number].groups[group].dense()
        out = self._arena.empty(len(x), len(dense), dtype=dense.dtype) if out is None else out
        return torch.mm(self._in(dense.dtype, x), dense.mT, out=out)

    def _update(self, number: int, group: int, x: Tensor, onto: Tensor, down: Tensor | None) -> None:
        """Add what sessions add to a product."""
        update, outs = self._updates[number][group], self._outs[group]
        if update is not None and down is not None:
            exact = self._in(torch.float32, x)
            updating.add(self._arena, self._packed.sessions, update, self._scale, exact, onto, outs, down)

    def _in(self, dtype: torch.dtype, x: Tensor) -> Tensor:
        """The same numbers in a precision."""
        if x.dtype == dtype:
            return x
        moved = self._arena.empty(*x.shape, dtype=dtype)
        moved.copy_(x)
        return moved

    def _turn(self, turns: Tensor) -> None:
        """Turn pairs of channels of queries and keys."""
        shape = self._base.shape
        turned = self._heads[:, : (shape.heads + shape.kv_heads) * shape.head]
        torch.view_as_complex(turned.unflatten(1, (-1, shape.head // 2, 2))).mul_(turns)

    def _normal(self, x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        """The RMS norm of `x [N, width]`, and by what `[N, 1]` it was multiplied."""
        size: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        size = size.square_().div_(x.shape[1]).add_(self._base.shape.epsilon).rsqrt_()
        torch.mul(x, size, out=out).mul_(weight)
        return size

    def _pull_normal(self, given: Tensor, x: Tensor, size: Tensor, weight: Tensor, onto: Tensor) -> None:
        """Add the gradient of x to `onto`."""
        given = torch.mul(self._in(torch.float32, given), weight, out=self._arena.empty(*x.shape))
        along = torch.mul(given, x, out=self._arena.empty(*x.shape)).sum(1, keepdim=True).div_(-x.shape[1])
        onto.addcmul_(given, size).addcmul_(x, along.mul_(size.pow(3)))
