"""Random numbers that are a function of where they are used: no generator, no hidden state.

A key is a 64-bit hash of what identifies a draw (a recipe's seed, a session's step, what the draw is for, the row),
and the i-th number under a key is a hash of key and i. A step that is repeated from a snapshot so draws the same
numbers to the bit, and what one session draws does not depend on who shares its step.

The hash is SplitMix64's output function (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators", figure 17 with the constants of variant 13).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.requests import Index

Keys = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)


def keys(*parts: int | NDArray[np.int64] | Index) -> Keys:
    """One key for each element of the parts, broadcast against each other to one axis `[N]`.

    Keys differ, but for the chance of a 64-bit collision, where any part does; the order of the parts matters.
    """
    wide = np.broadcast_arrays(*(np.atleast_1d(np.asarray(part, np.int64)) for part in parts))
    key = np.zeros(len(wide[0]), np.uint64)
    for part in wide:
        key = _mixed(key + GOLDEN + _mixed(part.astype(np.uint64) + GOLDEN))
    return key


def uniform(key: Keys, count: int) -> Float:
    """Numbers `[N, count]` in the open interval (0, 1), 23 bits each, for keys `[N]`."""
    index = (np.arange(1, count + 1, dtype=np.uint64) * GOLDEN)[np.newaxis]
    bits = _mixed(key[:, np.newaxis] + index)
    # 23 bits, so that the half step added to stay off zero is exact in float32.
    result: Float = ((bits >> np.uint64(41)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)
    return result


def normal(key: Keys, count: int) -> Float:
    """Standard normal numbers `[N, count]` for keys `[N]` (Box and Muller 1958)."""
    pairs = (count + 1) // 2
    u = uniform(key, 2 * pairs)
    radius = np.sqrt(np.float32(-2) * np.log(u[:, :pairs]))
    angle = np.float32(2 * np.pi) * u[:, pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]


def rank(group: Index) -> Index:
    """The how-manieth row of its own group each row `[B]` is, from 0."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], group[order], side="left")
    result = np.empty(len(group), np.intp)
    result[order] = np.arange(len(group)) - starts
    return result


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function, elementwise; unsigned arithmetic wraps by definition."""
    z = (z ^ (z >> np.uint64(30))) * FIRST
    z = (z ^ (z >> np.uint64(27))) * SECOND
    return z ^ (z >> np.uint64(31))
