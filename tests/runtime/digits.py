"""Pictures for the digits bundle: real digits of the dev part, drifted."""

from __future__ import annotations

from functools import cache

import numpy as np

from acclimate.examples.digits.corruptions import CORRUPTIONS, corrupted
from acclimate.examples.digits.data import Digits, Split, load


@cache
def split() -> Split:
    return load()


def dev() -> Digits:
    return split().dev


def picture(seed: int, rows: int = 1, name: str | None = None, severity: float = 0.7) -> np.ndarray:
    """`[rows, 1, 28, 28]` uint8: digits of the dev part under a corruption, chosen by `seed` unless named."""
    generator = np.random.default_rng(seed)
    chosen = name or sorted(CORRUPTIONS)[seed % len(CORRUPTIONS)]
    images = dev().images[generator.integers(0, len(dev()), rows)]
    return np.stack([corrupted(chosen, image, severity, generator) for image in images])
