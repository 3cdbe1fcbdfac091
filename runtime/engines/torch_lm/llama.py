"""Llama and its relatives (Touvron et al. 2023, arXiv 2302.13971): what the passes of learning and generating read.

In either the residual stream and low-rank updates are float32, and the products of the base in its working precision.

Rotary embeddings turn pairs of channels. Checkpoints keep the two halves of a head apart; here the rows of the query
and key projections lie so that the two of a pair are neighbours, and turning them is one complex product. Scores of
attention are sums over channels and do not notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acclimate.runtime.engines.torch_lm.lowrank import GROUPS
from acclimate.runtime.engines.torch_lm.weights import Weight

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
