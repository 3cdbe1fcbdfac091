"""A session's norm affines and statistics as the weight scales and biases of quantized convolutions.

An integer convolution computes `acc = sum q_x q_w` and returns `input_scale * scale * (acc + bias)`. With
`w = weight_scale * q_w` a normalised convolution `gamma (w * x + offset - mean) / sqrt(var + eps) + beta` is that
formula with, per output channel,

    a = gamma / sqrt(var + eps)
    scale = a * weight_scale
    bias = round((beta - a (mean - offset)) / (input_scale * scale))

(Jacob et al. 2018, arXiv 1712.05877, section 3.2, with the scale left signed.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.errors import LayoutError
from acclimate.adapters.layout import Float, Layout
from acclimate.adapters.manifest import Site

FOLD_ARRAYS = ("weight_scale", "input_scale", "offset")
BIAS_LIMIT = 2.0**30
"""Largest bias: half of int32, which leaves as much again for the accumulated products."""


@dataclass(frozen=True)
class Folding:
    """Where each packed channel's numbers lie; S is the sum of the sites' channels, in site order.

    Attributes:
        weight_scale: `[S]` float32 scale of each output channel's int8 weights.
        input_scale: `[S]` float32 scale of the activations that its convolution reads.
        offset: `[S]` float32 bias of the convolution before the norm, 0 where it has none.
        epsilon: `[S]` float64 of the norm.
        gamma, beta: `[S]` columns of theta.
        mean, var: `[S]` columns of stats.
    """

    weight_scale: Float
    input_scale: Float
    offset: Float
    epsilon: NDArray[np.float64]
    gamma: NDArray[np.intp]
    beta: NDArray[np.intp]
    mean: NDArray[np.intp]
    var: NDArray[np.intp]

    @classmethod
    def of(
        cls,
        sites: Sequence[Site],
        parameters: Layout,
        statistics: Layout,
        arrays: Mapping[str, NDArray[np.float32]],
    ) -> Folding:
        """Resolve the sites against their layouts; `arrays` holds `weight_scale`, `input_scale` and `offset`.

        Raises:
            LayoutError: an array is missing, or has not one entry per channel of the sites.
        """
        channels = sum(site.channels for site in sites)
        for name in FOLD_ARRAYS:
            if name not in arrays or arrays[name].shape != (channels,):
                found = arrays[name].shape if name in arrays else "missing"
                raise LayoutError(f"folding: {name!r} is {found}; expected shape ({channels},), one per site channel")
        return cls(
            weight_scale=np.asarray(arrays["weight_scale"], np.float32),
            input_scale=np.asarray(arrays["input_scale"], np.float32),
            offset=np.asarray(arrays["offset"], np.float32),
            epsilon=np.concatenate([np.empty(0), *(np.full(site.channels, site.epsilon) for site in sites)]),
            gamma=_columns(parameters, [site.scale for site in sites]),
            beta=_columns(parameters, [site.shift for site in sites]),
            mean=_columns(statistics, [site.mean for site in sites]),
            var=_columns(statistics, [site.var for site in sites]),
        )


def fold(folding: Folding, theta: Float, stats: Float) -> tuple[Float, NDArray[np.int32]]:
    """The packed `scale` and `bias` inputs of `forward.onnx`.

    A gamma near zero has no finite bias in units of its own scale, so the scale is kept (with its sign, and
    positive for zero) at least so large that the bias stays within `BIAS_LIMIT`: the channel then answers its
    shift, off by at most accumulator / 2^30 of it.

    Args:
        folding: the bundle's folding.
        theta: `[..., P]` parameters; leading axes are kept.
        stats: `[..., Q]` running statistics.

    Returns:
        `scale [..., S]` float32 and `bias [..., S]` int32.
    """
    # In double precision and rounded once, so that equal rows fold to equal bits on every machine.
    wide, norm = theta.astype(np.float64), stats.astype(np.float64)
    gain = wide[..., folding.gamma] / np.sqrt(norm[..., folding.var] + folding.epsilon)
    shift = wide[..., folding.beta] - gain * (norm[..., folding.mean] - folding.offset)
    wanted = gain * folding.weight_scale
    smallest = np.maximum(np.abs(shift) / (folding.input_scale * BIAS_LIMIT), np.finfo(np.float32).tiny)
    scale = np.where(np.abs(wanted) < smallest, np.copysign(smallest, wanted), wanted).astype(np.float32)
    bias = np.rint(shift / (folding.input_scale * scale.astype(np.float64)))
    return scale, np.clip(bias, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)


def _columns(layout: Layout, names: Sequence[str]) -> NDArray[np.intp]:
    spans = {entry.name: entry.span for entry in layout.slices}
    columns = [np.arange(spans[name].start, spans[name].stop) for name in names]
    return np.concatenate([np.empty(0, np.intp), *columns])
