"""Random views of inputs, each row by its own key: what consistency, memory and structure-aware recipes look at.

Images are `[B, C, H, W]` or `[B, H, W, C]`. Inputs that are not images, such as feature vectors, get the views that
still mean something: noise, and shuffled blocks in place of shuffled patches. Views keep shape and dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.randomness import Keys, normal, uniform

CHANNELS = (1, 3, 4)
# Luma, and the two chroma axes in whose plane hue is an angle (NTSC's YIQ).
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float32)
RGB = np.linalg.inv(YIQ).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Space:
    """What inputs look like: their range, and which axis of a batch holds the channels (None: no images)."""

    low: float
    high: float
    channel_axis: int | None

    @classmethod
    def of(cls, examples: NDArray[Any]) -> Space:
        """Read it off source samples `[K, ...]`: integers span their dtype, floats what the samples span."""
        shape, axis = examples.shape[1:], None
        if len(shape) == 3:
            axis = 1 if shape[0] in CHANNELS else 3 if shape[2] in CHANNELS else None
        if examples.dtype.kind in "iu":
            limits = np.iinfo(examples.dtype)
            return cls(float(limits.min), float(limits.max), axis)
        if examples.size == 0:
            return cls(0.0, 1.0, axis)
        low, high = float(examples.min()), float(examples.max())
        return cls(low, max(high, low + 1e-6), axis)

    def canvas(self, inputs: NDArray[Any]) -> Float:
        """Inputs `[B, ...]` as `[B, C, H, W]` float32, the range mapped to [0, 1]; vectors become one line."""
        unit = (inputs.astype(np.float32) - np.float32(self.low)) / np.float32(self.high - self.low)
        if self.channel_axis is None:
            return unit.reshape(len(inputs), 1, 1, math.prod(inputs.shape[1:]))
        return unit if self.channel_axis == 1 else unit.transpose(0, 3, 1, 2)

    def inputs(self, canvas: Float, like: NDArray[Any]) -> NDArray[Any]:
        """Back to the shape and dtype of `like`; integers are rounded, images clipped to the range."""
        if self.channel_axis is not None:
            canvas = canvas.clip(0, 1)
        if self.channel_axis == 3:
            canvas = canvas.transpose(0, 2, 3, 1)
        values = canvas * np.float32(self.high - self.low) + np.float32(self.low)
        if like.dtype.kind in "iu":
            values = np.rint(values).clip(self.low, self.high)
        return values.reshape(like.shape).astype(like.dtype)


View = Callable[[NDArray[Any], Keys, Space], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Strength:
    """Half-widths of uniform draws, but for `blur` (largest sigma, pixels) and `noise` (sigma, share of the range).

    `hue` is in turns, `rotation` in degrees, `shift` a share of the image's side; the rest multiply.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    gamma: float
    rotation: float
    shift: float
    scale: float
    blur: float
    noise: float


STRONG = Strength(0.4, 0.3, 0.5, 0.06, 0.3, 15.0, 1 / 16, 0.1, 0.5, 0.005)
"""CoTTA's augmentations (Wang et al. 2022, section 3.2, as its code sets them), which RoTTA and ROID share."""


def strong_view(inputs: NDArray[Any], key: Keys, space: Space, strength: Strength = STRONG) -> NDArray[Any]:
    """Colour jitter, gamma, affine warp with mirrored halves of the time, blur and noise; key `[B]`."""
    canvas, draws = space.canvas(inputs), np.float32(2) * uniform(key, 12) - np.float32(1)
    if space.channel_axis is not None:
        canvas = _coloured(canvas, draws[:, :5], strength)
        canvas = _warped(canvas, draws[:, 5:10], strength)
        canvas = _blurred(canvas, np.float32(strength.blur) * np.abs(draws[:, 10]) + np.float32(1e-3))
    # The keys of the noise: a number no uniform draw above was made with.
    noise = normal(key ^ np.uint64(0x5851F42D4C957F2D), math.prod(canvas.shape[1:]))
    return space.inputs(canvas + np.float32(strength.noise) * noise.reshape(canvas.shape), inputs)


def shuffled_patches(inputs: NDArray[Any], key: Keys, space: Space, patches: int = 4) -> NDArray[Any]:
    """Cut into `patches` by `patches` tiles and put them back in random order (DeYO: Lee et al. 2024, section 4.1).

    Sides that the number does not divide keep a border where it was.
    """
    canvas = space.canvas(inputs).copy()
    rows, channels, height, width = canvas.shape
    down, across = min(patches, height), min(patches, width)
    h, w = height // down, width // across
    tiles = canvas[:, :, : h * down, : w * across].reshape(rows, channels, down, h, across, w)
    tiles = tiles.transpose(0, 2, 4, 1, 3, 5).reshape(rows, down * across, channels, h, w)
    order = uniform(key, down * across).argsort(axis=1)
    tiles = np.take_along_axis(tiles, order[:, :, np.newaxis, np.newaxis, np.newaxis], axis=1)
    tiles = tiles.reshape(rows, down, across, channels, h, w).transpose(0, 3, 1, 4, 2, 5)
    canvas[:, :, : h * down, : w * across] = tiles.reshape(rows, channels, h * down, w * across)
    return space.inputs(canvas, inputs)


def mixed_view(inputs: NDArray[Any], key: Keys, space: Space, chains: int = 3) -> NDArray[Any]:
    """A random blend of the input with `chains` strong views of it (AugMix: Hendrycks et al. 2020, algorithm 1).

    AugMix draws each chain from posterised, solarised, sheared and similar images; here a chain is `strong_view`.
    """
    canvas = space.canvas(inputs)
    # A flat Dirichlet is exponential draws over their sum; Beta(1, 1) is uniform.
    draws = uniform(key ^ np.uint64(0x2545F4914F6CDD1D), chains + 1)
    parts = -np.log(draws[:, :chains])
    weight = parts / parts.sum(axis=1, keepdims=True)
    mixed = np.zeros_like(canvas)
    for chain in range(chains):
        view = space.canvas(strong_view(inputs, key + np.uint64(chain + 1), space))
        mixed += weight[:, chain, np.newaxis, np.newaxis, np.newaxis] * view
    share = draws[:, chains, np.newaxis, np.newaxis, np.newaxis]
    return space.inputs(share * canvas + (1 - share) * mixed, inputs)


def _coloured(canvas: Float, draws: Float, strength: Strength) -> Float:
    """Brightness, contrast, then saturation and hue where there are three channels, then gamma; draws `[B, 5]`."""
    wide = draws[:, :, np.newaxis, np.newaxis, np.newaxis]
    canvas = canvas * (1 + np.float32(strength.brightness) * wide[:, 0])
    mean = canvas.mean(axis=(1, 2, 3), keepdims=True)
    canvas = mean + (canvas - mean) * (1 + np.float32(strength.contrast) * wide[:, 1])
    if canvas.shape[1] == 3:
        turn = np.float32(2 * np.pi * strength.hue) * draws[:, 3]
        size = 1 + np.float32(strength.saturation) * draws[:, 2]
        chroma = np.zeros((len(canvas), 3, 3), np.float32)
        chroma[:, 0, 0] = 1
        chroma[:, 1, 1] = chroma[:, 2, 2] = size * np.cos(turn)
        chroma[:, 1, 2], chroma[:, 2, 1] = -size * np.sin(turn), size * np.sin(turn)
        matrix = RGB @ chroma @ YIQ
        canvas = (matrix[:, :, :, np.newaxis, np.newaxis] * canvas[:, np.newaxis]).sum(axis=2)
    power = 1 + np.float32(strength.gamma) * wide[:, 4]
    result: Float = canvas.clip(np.float32(1e-6), 1) ** power
    return result


def _warped(canvas: Float, draws: Float, strength: Strength) -> Float:
    """Rotate, scale, shift, and mirror where the last draw is positive; edges repeat; draws `[B, 5]`."""
    _, _, height, width = canvas.shape
    angle = np.float32(np.deg2rad(strength.rotation)) * draws[:, 0]
    scale = 1 + np.float32(strength.scale) * draws[:, 1]
    mirror = np.where(draws[:, 4] > 0, np.float32(-1), np.float32(1))
    y, x = np.meshgrid(np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32), indexing="ij")
    middle = np.float32((height - 1) / 2), np.float32((width - 1) / 2)
    y, x = y[np.newaxis] - middle[0], x[np.newaxis] - middle[1]
    cos, sin = (np.cos(angle) / scale)[:, np.newaxis, np.newaxis], (np.sin(angle) / scale)[:, np.newaxis, np.newaxis]
    shift = np.float32(strength.shift) * draws[:, 2:4, np.newaxis, np.newaxis]
    from_y = cos * y - sin * x + middle[0] + shift[:, 0] * height
    from_x = (sin * y + cos * x) * mirror[:, np.newaxis, np.newaxis] + middle[1] + shift[:, 1] * width
    return _sampled(canvas, from_y.clip(0, height - 1), from_x.clip(0, width - 1))


def _sampled(canvas: Float, y: Float, x: Float) -> Float:
    """Bilinear values of the canvas at positions `[B, H, W]` inside it."""
    rows, channels, height, width = canvas.shape
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = (y - top)[:, np.newaxis], (x - left)[:, np.newaxis]
    flat = canvas.reshape(rows, channels, height * width)

    def at(row: NDArray[np.intp], column: NDArray[np.intp]) -> Float:
        index = (row * width + column).reshape(rows, 1, height * width)
        return np.take_along_axis(flat, index, axis=2).reshape(canvas.shape)

    upper = at(top, left) * (1 - across) + at(top, right) * across
    lower = at(bottom, left) * (1 - across) + at(bottom, right) * across
    result: Float = (upper * (1 - down) + lower * down).astype(np.float32)
    return result


def _blurred(canvas: Float, sigma: Float, reach: int = 2) -> Float:
    """Gaussian blur of `2 reach + 1` taps with sigma `[B]` in pixels; edges repeat."""
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    taps = np.exp(np.float32(-0.5) * np.minimum((offsets / sigma[:, np.newaxis]) ** 2, 80))
    taps = (taps / taps.sum(axis=1, keepdims=True))[:, :, np.newaxis, np.newaxis, np.newaxis]
    for axis in (2, 3):
        size = canvas.shape[axis]
        reached = np.arange(size) + offsets.astype(np.intp)[:, np.newaxis]
        parts = [np.take(canvas, index.clip(0, size - 1), axis=axis) for index in reached]
        canvas = sum((taps[:, i] * part for i, part in enumerate(parts)), np.zeros_like(canvas))
    return canvas
