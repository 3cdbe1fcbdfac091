"""How far a session's parameters have gone from the source's, in the units of the trust region."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float, Layout
from acclimate.adapters.source import Source

Wide = NDArray[np.float64]
Pair = tuple[Wide, Wide]


def theta_distance(theta: Float, source: Source) -> Float:
    """Relative distance `[S]` of theta `[S, P]` from the source's parameters; 0 is the source.

    `||theta - theta0|| / ||theta0||`, where a low-rank update `B A` (Hu et al. 2021, arXiv 2106.09685) counts by its
    product: `||B A - B0 A0|| sqrt(rank) / ||A0||`, which is `||B - B0||` while A stays at orthogonal rows of equal
    length. A alone changes nothing while B is zero, and two pairs with the same product are the same update.
    """
    pairs = tuple(_pairs(source.parameters))
    plain = np.ones(source.parameters.size, np.bool_)
    for a, b, _ in pairs:
        plain[a] = plain[b] = False
    scale = max(float(np.linalg.norm(source.theta)), 1e-12)
    if not pairs:
        whole: Float = np.linalg.norm(theta - source.theta, axis=1) / scale
        return whole
    squared = (theta[:, plain] - source.theta[plain]).astype(np.float64) ** 2
    total = squared.sum(axis=1)
    for a, b, rank in pairs:
        old = _pair(source.theta[np.newaxis], a, b, rank)
        length = max(float(np.sum(old[0] ** 2)), 1e-24)
        total = total + _squared(_pair(theta, a, b, rank), old) * rank / length
    result: Float = (np.sqrt(total) / scale).astype(np.float32)
    return result


def _pairs(layout: Layout) -> Iterator[tuple[slice, slice, int]]:
    """Columns of A and of B, and the rank, for every low-rank update of a layout."""
    spans = {entry.name: entry.span for entry in layout.slices}
    for entry in layout.slices:
        partner = entry.name.replace(".lora_A.", ".lora_B.")
        if entry.kind == "lora.A" and partner != entry.name and partner in spans:
            yield entry.span, spans[partner], entry.shape[0]


def _pair(theta: Float, a: slice, b: slice, rank: int) -> Pair:
    """A `[S, rank, K]` and B `[S, N, rank]`, float64."""
    wide: Wide = theta.astype(np.float64)
    return wide[:, a].reshape(len(theta), rank, -1), wide[:, b].reshape(len(theta), -1, rank)


def _squared(new: Pair, old: Pair) -> Wide:
    """`||B A - B0 A0||^2 [S]`, from products of rank by rank: `||B A||^2 = trace((B' B) (A A'))`."""

    def inner(one: Pair, other: Pair) -> Wide:
        left = np.swapaxes(one[1], 1, 2) @ other[1]
        right = one[0] @ np.swapaxes(other[0], 1, 2)
        result: Wide = (left * right).sum(axis=(1, 2))
        return result

    gap = inner(new, new) - 2 * inner(new, old) + inner(old, old)
    result: Wide = np.maximum(gap, 0.0)
    return result
