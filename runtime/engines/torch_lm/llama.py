"""The forward pass of Llama and its relatives (Touvron et al. 2023, arXiv 2302.13971), for tokens of many sessions.

Tokens come packed, `[N, ...]`, whoever they belong to; only attention, which the caller brings, knows of rows and
caches. The residual stream and low-rank updates are float32, the products of the base in its working precision.

Rotary embeddings turn pairs of channels. Checkpoints keep the two halves of a head apart; here the rows of the query
and key projections lie so that the two of a pair are neighbours, and turning them is one complex product. Scores of
attention are sums over channels and do not notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from acclimate.runtime.engines.torch_lm.lowrank import GROUPS, Update, Updates
from acclimate.runtime.engines.torch_lm.packing import Lines
from acclimate.runtime.engines.torch_lm.weights import Weight, product

QKV, OUT, GATE_UP, DOWN = range(len(GROUPS))


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths and constants of a model."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    vocabulary: int
    epsilon: float

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Name -> (out, in)."""
        query, key = self.heads * self.head, self.kv_heads * self.head
        return {
            "q_proj": (query, self.width),
            "k_proj": (key, self.width),
            "v_proj": (key, self.width),
            "o_proj": (self.width, query),
            "gate_proj": (self.inner, self.width),
            "up_proj": (self.inner, self.width),
            "down_proj": (self.width, self.inner),
        }


@dataclass(frozen=True, slots=True)
class Layer:
    """Matrices and norms of a layer; `groups` in the order of `lowrank.GROUPS`, `bias` of the first or None."""

    groups: tuple[Weight, ...]
    bias: Tensor | None
    before_attention: Tensor
    before_inner: Tensor


@dataclass(frozen=True, slots=True)
class Base:
    """The frozen model, shared by all its sessions.

    Attributes:
        shape: its widths.
        embedding: `[V, width]`.
        head: the matrix of the vocabulary, the embedding itself where they are tied.
        layers: in order.
        norm: `[width]` of the last norm.
        turns: `[context, 1, head / 2]` complex, by which pairs of channels are turned at each position.
        working: the precision of activations in products.
    """

    shape: Shape
    embedding: Tensor
    head: Weight
    layers: tuple[Layer, ...]
    norm: Tensor
    turns: Tensor
    working: torch.dtype

    @property
    def bytes(self) -> int:
        """Memory of its matrices."""
        held = sum(weight.bytes for layer in self.layers for weight in layer.groups)
        tied = self.head.dense() is self.embedding
        return held + self.head.bytes + (0 if tied else self.embedding.nbytes)


class Attention(Protocol):
    """Mixes values over the tokens that each may see."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[N, heads, head]`, `[N, kv_heads, head]` twice -> `[N, heads * head]`."""


@dataclass(frozen=True, slots=True)
class Feed:
    """What is read: `ids [N]`, `positions [N]`, the lines of the sessions, and each session's updates, if any."""

    ids: Tensor
    positions: Tensor
    sessions: Lines
    updates: Updates | None
    scale: float


def hidden(base: Base, feed: Feed, attend: Attention) -> Tensor:
    """What the head reads `[N, width]`, float32."""
    shape = base.shape
    x = F.embedding(feed.ids, base.embedding).float()
    turns = base.turns[feed.positions]
    rotated = shape.heads + shape.kv_heads
    for number, layer in enumerate(base.layers):
        normed = F.rms_norm(x, (shape.width,), layer.before_attention, shape.epsilon)
        mixed = _product(base, feed, normed, number, QKV)
        if layer.bias is not None:
            mixed = mixed + layer.bias
        heads = mixed.unflatten(1, (rotated + shape.kv_heads, shape.head))
        turned = _turn(heads[:, :rotated], turns).to(base.working)
        value = heads[:, rotated:].to(base.working)
        seen = attend(number, turned[:, : shape.heads], turned[:, shape.heads :], value)
        x = x + _product(base, feed, seen, number, OUT)
        normed = F.rms_norm(x, (shape.width,), layer.before_inner, shape.epsilon)
        both = _product(base, feed, normed, number, GATE_UP)
        inner = F.silu(both[:, : shape.inner]) * both[:, shape.inner :]
        x = x + _product(base, feed, inner, number, DOWN)
    return F.rms_norm(x, (shape.width,), base.norm, shape.epsilon)


def _turn(heads: Tensor, turns: Tensor) -> Tensor:
    pairs = torch.view_as_complex(heads.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)


def _product(base: Base, feed: Feed, x: Tensor, layer: int, group: int) -> Tensor:
    """A product of the base with what each session adds to it."""
    out = product(x.to(base.working), base.layers[layer].groups[group])
    update = None if feed.updates is None else feed.updates[layer][group]
    if update is None:
        return out
    sizes = [base.shape.projections[name][0] for name in GROUPS[group]]
    return _updated(out, x, update, sizes, feed)


def _updated(out: Tensor, x: Tensor, update: Update, sizes: list[int], feed: Feed) -> Tensor:
    rank = update.a.shape[1] // sum(b is not None for b in update.b)
    down = torch.bmm(feed.sessions.lined(x.float()), update.a.mT) * feed.scale
    parts, done = [], 0
    for part, b in zip(out.split(sizes, 1), update.b, strict=True):
        if b is None:
            parts.append(part.float())
            continue
        added = torch.bmm(down[..., done : done + rank], b.mT)
        parts.append(part + feed.sessions.entries(added))
        done += rank
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def configured(config: Any) -> Shape:
    """The shape in a transformers configuration."""
    return Shape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        inner=config.intermediate_size,
        vocabulary=config.vocab_size,
        epsilon=config.rms_norm_eps,
    )
