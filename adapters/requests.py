"""What an adaptation step asks of an engine, and what it is fed.

A step never holds an engine: it yields one of these requests and is sent the reply, so that plain,
sharpness-aware and forward-only methods share one driver and a budget can count each request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch whose rows may belong to many sessions.

    Attributes:
        inputs: `[B, ...]` in the model's own input dtype.
        theta: `[B, P]` float32, each row the parameters of that sample's session.
        stats: `[B, Q]` float32, each row the running normalisation statistics of that session.
        group: `[B]` row groups; batch statistics are averaged over the rows that share a number.
        alpha: `[B]` float32 in [0, 1], the weight of the batch statistics against `stats`
            (1 is TENT's test-batch normalisation, 0 the running statistics alone). Equal within a group.
    """

    inputs: NDArray[Any]
    theta: Float
    stats: Float
    group: Index
    alpha: Float

    def __len__(self) -> int:
        return len(self.group)

    def take(self, keep: Index) -> Rows:
        """The rows at these positions, in this order."""
        return Rows(self.inputs[keep], self.theta[keep], self.stats[keep], self.group[keep], self.alpha[keep])


@dataclass(frozen=True, slots=True)
class Forward:
    """Ask for float outputs and batch statistics at `rows`; the reply is `Outputs`."""

    rows: Rows


@dataclass(frozen=True, slots=True)
class Gradient:
    """Ask for `(d logits / d theta)^T cotangent` at `rows`; the reply is `Gradients`. Cotangent is `[B, C]`.

    `features [B, D]`, if given, adds `(d features / d theta)^T features`: the gradient of a loss on the features.
    """

    rows: Rows
    cotangent: Float
    features: Float | None = None

    def take(self, keep: Index) -> Gradient:
        """The request for the rows at these positions, in this order."""
        features = None if self.features is None else self.features[keep]
        return Gradient(self.rows.take(keep), self.cotangent[keep], features)


@dataclass(frozen=True, slots=True)
class Outputs:
    """Logits `[B, C]` and the statistics `[B, Q]` of each row's group, averaged over the group's rows.

    `features [B, D]` is what the last linear layer saw; nothing, of size 0, where the model or the pass has none.
    """

    logits: Float
    batch_stats: Float
    features: Float = field(default_factory=lambda: np.zeros((0, 0), np.float32))


@dataclass(frozen=True, slots=True)
class Gradients:
    """Per-row gradients `[B, P]`, with the logits `[B, C]` of the same pass."""

    grad_theta: Float
    logits: Float


@dataclass(frozen=True, slots=True)
class Frozen:
    """Ask what the unadapted quantized model answers to `inputs [B, ...]`; the reply's `batch_stats` is empty."""

    inputs: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Serve:
    """Ask what the quantized model would answer to `inputs [B, ...]`, were its sessions to serve these rows.

    `theta [S, P]` and `stats [S, Q]` hold one row per session and `group [B]` says whose each sample is. A pass of
    the int8 kernels, several times cheaper than `Forward`; the reply's `batch_stats` is empty.
    """

    inputs: NDArray[Any]
    theta: Float
    stats: Float
    group: Index


Request = Forward | Gradient | Frozen | Serve
Reply = Outputs | Gradients
