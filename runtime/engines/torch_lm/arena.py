"""Memory of one learning step, handed out piece by piece and given back at once.

A step makes thousands of tensors of a megabyte. An allocator that returns each to the system and asks for it again
spends a tenth of the step on pages. Here they lie one behind the other in a few large blocks; on a processor these
come from NumPy, which asks Linux for huge pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 25
ALIGNED = 64


class Arena:
    """Uninitialised tensors on a device; used by one call at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._blocks: list[Tensor] = []
        self._at = (-1, 0)

    @property
    def bytes(self) -> int:
        """Memory it occupies."""
        return sum(len(block) for block in self._blocks)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor with whatever lay there."""
        size = math.prod(shape) * dtype.itemsize
        number, start = self._at
        while number < 0 or start + size > len(self._blocks[number]):
            number, start = number + 1, 0
            if number == len(self._blocks):
                self._blocks.append(self._block(max(size, BLOCK)))
        self._at = (number, -(-(start + size) // ALIGNED) * ALIGNED)
        return self._blocks[number][start : start + size].view(dtype).view(shape)

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """What is made within is given back at its end."""
        at = self._at
        try:
            yield
        finally:
            self._at = at

    def _block(self, size: int) -> Tensor:
        if self._device.type == "cpu":
            return torch.from_numpy(np.empty(size, np.uint8))
        return torch.empty(size, dtype=torch.uint8, device=self._device)
