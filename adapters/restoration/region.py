"""Keeping theta inside a ball around the source, instead of refusing the step that would leave it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acclimate.adapters.layout import Float


@dataclass(frozen=True, slots=True)
class TrustRegion:
    """Theta is put back onto the sphere `||theta - theta0|| = radius ||theta0||` where it lies outside.

    With a radius below that of the guard, long streams go on learning at the rim where the guard would roll back.
    """

    radius: float = 0.4

    def apply(self, theta: Float, source: Float) -> Float:
        """Projected theta `[S, P]` for theta `[S, P]` and the source's `[P]`; non-finite rows are left alone."""
        offset = theta - source
        length = np.linalg.norm(offset, axis=1, keepdims=True)
        allowed = np.float32(self.radius * max(float(np.linalg.norm(source)), 1e-12))
        shrink = np.where(length > allowed, allowed / np.maximum(length, np.float32(1e-30)), np.float32(1))
        return np.where(np.isfinite(length) & (length > allowed), source + shrink * offset, theta).astype(np.float32)
