"""The source's features, as one Gaussian for each class: what `cafa` aligns with and `t3a` starts from.

Features are the input `[B, D]` of the last linear layer. A bundle keeps few numbers of them: centres, one covariance
that all groups share, of which the 64 leading directions are exact and the rest is a diagonal, and the layer itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.errors import LayoutError
from acclimate.adapters.layout import Float

PREFIX = "features."
RANK = 64
"""Directions of the covariance that are kept."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Figures of the source's features; D wide, C classes.

    Attributes:
        centres: `[G, D]` mean of each group; the groups are the classes, or there is one of everything.
        shares: `[G]` share of each group; they sum to one.
        factor: `[D, R]`, and
        residual: `[D]`: the covariance within groups is `factor factor^T + diag(residual)`.
        weight: `[C, D]` of the last linear layer, to 8 bits.
        bias: `[C]` of it.
    """

    centres: Float
    shares: Float
    factor: Float
    residual: Float
    weight: Float
    bias: Float

    @property
    def width(self) -> int:
        """D."""
        return int(self.centres.shape[1])

    @property
    def by_class(self) -> bool:
        """Whether the groups are the classes."""
        return len(self.centres) == len(self.bias)

    @property
    def mean(self) -> Float:
        """Mean `[D]` over everything."""
        result: Float = (self.shares @ self.centres).astype(np.float32)
        return result

    def covariance(self) -> Float:
        """Covariance `[D, D]` over everything: that within groups, and that of their centres."""
        apart = self.centres - self.mean
        within = self.factor @ self.factor.T + np.diag(self.residual)
        result: Float = (within + (apart * self.shares[:, np.newaxis]).T @ apart).astype(np.float32)
        return result

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]], width: int, classes: int) -> FeatureStatistics | None:
        """Those among the arrays of `source.safetensors`; None if there are none.

        Raises:
            LayoutError: an array is missing, not finite, or of another shape or type.
        """
        if width == 0 or not any(name.startswith(PREFIX) for name in tensors):
            return None
        found = {name.removeprefix(PREFIX): array for name, array in tensors.items() if name.startswith(PREFIX)}
        groups, rank = (_last_axis(found.get(name)) for name in ("shares", "factor"))
        shapes = {
            "centres": (groups, width),
            "shares": (groups,),
            "factor": (width, rank),
            "residual": (width,),
            "scale": (classes,),
            "bias": (classes,),
        }
        for name, shape in shapes.items():
            array = found.get(name)
            if array is None or array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise LayoutError(f"'{PREFIX}{name}' is {_given(array)}; expected finite float32 of shape {shape}")
        weight = found.get("weight")
        if weight is None or weight.shape != (classes, width) or weight.dtype != np.int8:
            raise LayoutError(f"'{PREFIX}weight' is {_given(weight)}; expected int8 of shape {(classes, width)}")
        if groups not in (1, classes):
            raise LayoutError(f"'{PREFIX}shares' has {groups} groups; expected 1, or one for each of {classes} classes")
        own = {name: found[name].copy() for name in shapes if name != "scale"}
        return cls(weight=weight.astype(np.float32) * found["scale"][:, np.newaxis], **own)


def _last_axis(array: NDArray[Any] | None) -> int:
    return 0 if array is None or array.ndim == 0 else int(array.shape[-1])


def _given(array: NDArray[Any] | None) -> str:
    return "missing" if array is None else f"{array.dtype.name} of shape {array.shape}"


@dataclass(frozen=True)
class Precision:
    """The inverse of a covariance `factor factor^T + diag(residual + ridge)`, never written out.

    `diag(d) - V V^T` by Woodbury's identity, in double precision.

    Attributes:
        diagonal: `[D]`, d.
        factor: `[D, R]`, V.
    """

    diagonal: NDArray[np.float64]
    factor: NDArray[np.float64]

    @classmethod
    def of(cls, features: FeatureStatistics, ridge: float) -> Precision:
        """With `ridge` times the mean variance added to every variance, so that constant features do no harm."""
        factor = features.factor.astype(np.float64)
        residual = np.maximum(features.residual.astype(np.float64), 0)
        spread = float(((factor**2).sum(axis=1) + residual).mean())
        inverse = 1 / (residual + max(ridge * spread, 1e-12))
        scaled = factor * inverse[:, np.newaxis]
        root = np.linalg.cholesky(np.eye(factor.shape[1]) + factor.T @ scaled)
        return cls(inverse, np.linalg.solve(root, scaled.T).T)

    def times(self, offset: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse times each of the vectors `[..., D]`."""
        result: NDArray[np.float64] = offset * self.diagonal - (offset @ self.factor) @ self.factor.T
        return result
