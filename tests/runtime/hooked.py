"""A real engine with a door in front of each call, so that a test can hold it, break it or look at it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from acclimate.adapters.manifest import Manifest
from acclimate.adapters.requests import Forward, Gradient, Gradients, Outputs
from acclimate.adapters.source import Source
from acclimate.runtime.engines.base import Engine, Folded, Specialised
from tests.polling import PATIENCE_SECONDS

Door = Callable[[Any], None]


class Hooked:
    """Delegates to `inner`; `doors[name]` is called with a call's argument before it, and may raise or wait."""

    def __init__(self, inner: Engine, **doors: Door) -> None:
        self.inner = inner
        self.doors = doors
        self.most_groups = 0
        self.closed = 0

    @property
    def manifest(self) -> Manifest:
        return self.inner.manifest

    @property
    def source(self) -> Source:
        return self.inner.source

    @property
    def specialised(self) -> Specialised:
        return self.inner.specialised

    def frozen(self, inputs: np.ndarray) -> np.ndarray:
        self._enter("frozen", inputs)
        return self.inner.frozen(inputs)

    def fold(self, theta: np.ndarray, stats: np.ndarray) -> Folded:
        return self.inner.fold(theta, stats)

    def predict(self, inputs: np.ndarray, folded: Folded) -> np.ndarray:
        self._enter("predict", inputs)
        return self.inner.predict(inputs, folded)

    def forward(self, request: Forward) -> Outputs:
        self.most_groups = max(self.most_groups, len(np.unique(request.rows.group)))
        self._enter("forward", request)
        return self.inner.forward(request)

    def vjp(self, request: Gradient) -> Gradients:
        self._enter("vjp", request)
        return self.inner.vjp(request)

    def close(self) -> None:
        self.closed += 1
        self.inner.close()

    def _enter(self, name: str, argument: Any) -> None:
        if name in self.doors:
            self.doors[name](argument)


class Gate:
    """A door that says when somebody stands before it, and lets nobody through until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, argument: Any) -> None:
        self.reached.set()
        assert self._open.wait(PATIENCE_SECONDS), "the gate was never opened"

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self.reached.clear()
        self._open.clear()
