"""Memory of learning steps, handed out piece by piece and given back at once.

A step of 512 tokens of SmolLM2 makes thousands of tensors, 230 MB of which live until its end. Memory that the system
gives anew for each step has to be cleared first, which took a fifth of a step on a virtual machine. Here tensors lie
one behind the other in a few large blocks, and these are kept for the next step, if one comes soon.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 25
ALIGNED = 64
PATIENCE = 5.0
"""Seconds for which memory waits for the next step."""


class Arena:
    """Uninitialised tensors on a device; used by one call at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._blocks: list[Tensor] = []
        self._at = (-1, 0)

    def clear(self) -> None:
        """Take everything back."""
        self._at = (-1, 0)

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


class Arenas:
    """An arena for each call under way; that of the last call waits for the next one."""

    def __init__(self, device: torch.device, patience: float = PATIENCE) -> None:
        self._device, self._patience = device, patience
        self._waiting: deque[Arena] = deque(maxlen=1)
        self._lock = threading.Lock()
        self._until = 0.0
        self._timer: threading.Timer | None = None

    @property
    def waiting(self) -> bool:
        """Whether memory waits for a call."""
        return bool(self._waiting)

    @contextmanager
    def one(self) -> Iterator[Arena]:
        """Empty, and for one call."""
        try:
            arena = self._waiting.pop()
        except IndexError:
            arena = Arena(self._device)
        try:
            yield arena
        finally:
            arena.clear()
            self._waiting.append(arena)
            self._until = time.monotonic() + self._patience
            with self._lock:
                if self._timer is None:
                    self._watch(self._patience)

    def close(self) -> None:
        """Release what waits, now."""
        with self._lock:
            self._waiting.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _watch(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._release)
        self._timer.daemon = True
        self._timer.start()

    def _release(self) -> None:
        """Release what waits, unless there was a call meanwhile."""
        with self._lock:
            left = self._until - time.monotonic()
            if left > 0:
                self._watch(left)
                return
            self._timer = None
            self._waiting.clear()
