"""A small network with every kind of layer that takes a low-rank update, and what is asked of it."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.export.adaptation import Adaptation
from acclimate.export.backward.vjp import ALPHA, COTANGENT, MIX, STATS, THETA
from acclimate.export.graph import Graph
from acclimate.export.passes.sites import Adaptable, with_sites
from acclimate.export.reference import RowBatch
from acclimate.export.trace import traced
from tests.export.nets import PREPROCESSING, SHAPE, randomised, tiny_net


class MixedNet(nn.Module):
    """Convolutions of all kinds, one of them dilated and one grouped, attention by hand, windows in the batch."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.norm: nn.Module = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.wide = nn.Conv2d(6, 8, 3, stride=2, padding=2, dilation=2)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.narrow = nn.Conv2d(8, 8, 1, stride=2, bias=False)
        self.query, self.key, self.value = (nn.Linear(8, 8, bias=bias) for bias in (True, False, True))
        self.window = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, 3]` of `[B, 2, 9, 9]`."""
        x = functional.relu(self.norm(self.stem(x)))
        x = functional.gelu(self.grouped(self.wide(x)))
        tokens = self.narrow(x).flatten(2).transpose(1, 2)
        shares = (self.query(tokens) @ self.key(tokens).transpose(1, 2) / 8**0.5).softmax(-1)
        tokens = tokens + shares @ self.value(tokens)
        tokens = torch.tanh(self.window(tokens.reshape(-1, 3, 8))).reshape(-1, 9, 8)
        logits: Tensor = self.head(tokens.mean(1))
        return logits


def mixed_net(*, norm: bool = True) -> nn.Module:
    """A `MixedNet`, always the same."""
    torch.manual_seed(3)
    return randomised(MixedNet(norm=norm), 3)


@cache
def mixed_graph(*, norm: bool = True) -> Graph:
    """`mixed_net`, traced once."""
    return traced(mixed_net(norm=norm), PREPROCESSING, SHAPE)


@cache
def tiny_graph() -> Graph:
    """`tiny_net`, traced once."""
    return traced(tiny_net(), PREPROCESSING, SHAPE)


def adaptable(graph: Graph, *adapt: Adaptation) -> Adaptable:
    """The traced model with what `adapt` names in theta."""
    return with_sites(graph, adapt=adapt)


def feeds(rows: RowBatch) -> dict[str, np.ndarray]:
    """What `vjp.onnx` takes."""
    return {
        "image": rows.inputs,
        THETA: rows.theta,
        STATS: rows.stats,
        MIX: rows.mix(),
        ALPHA: rows.alpha,
        COTANGENT: rows.cotangent,
    }
