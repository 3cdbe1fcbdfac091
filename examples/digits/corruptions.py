"""Ways in which a camera's picture goes wrong, after Hendrycks and Dietterich 2019 (arXiv 1903.12261).

Each takes one image `[H, W]` uint8, a severity in [0, 1] and a generator, and returns an image of the same shape;
severity 0 returns the image unchanged. The strengths at severity 1 are meant for 28x28 digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.uint8]
Corruption = Callable[[Picture, float, np.random.Generator], Picture]

NOISE_LEVELS = 80.0
BLUR_RADIUS = 2.4
HAZE_CELLS = 4
TILT_DEGREES = 75.0
PATCH_SHARE = 0.75
GLARE_LEVELS = 110.0
DENSEST = 0.5
LEAST_CONTRAST = 0.08
COARSEST = 5


def corrupted(name: str, image: Picture, severity: float, generator: np.random.Generator) -> Picture:
    """Apply a corruption by name.

    Args:
        name: a key of `CORRUPTIONS`.
        image: `[1, H, W]` or `[H, W]` uint8.
        severity: 0 (unchanged) to 1.
        generator: the only source of randomness.

    Raises:
        ValueError: the name is unknown, or the severity is outside [0, 1].
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"corruption: {name!r} is unknown; choose one of {sorted(CORRUPTIONS)}")
    if not 0 <= severity <= 1:
        raise ValueError(f"severity: {severity} is outside [0, 1]")
    if severity == 0:
        return image
    plane = image.reshape(image.shape[-2:])
    return CORRUPTIONS[name](plane, severity, generator).reshape(image.shape)


def noise(image: Picture, severity: float, generator: np.random.Generator) -> Picture:
    """Gaussian sensor noise, standard deviation up to `NOISE_LEVELS` of 255."""
    return _bytes(image + generator.normal(0, NOISE_LEVELS * severity, image.shape))


def blur(image: Picture, severity: float, generator: np.random.Generator) -> Picture:  # noqa: ARG001
    """Defocus, as a Gaussian of up to `BLUR_RADIUS` pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR_RADIUS * severity)))


def contrast(image: Picture, severity: float, generator: np.random.Generator) -> Picture:  # noqa: ARG001
    """Pixels pulled toward the picture's mean, until `LEAST_CONTRAST` of their spread is left."""
    mean = image.mean()
    return _bytes(mean + (image - mean) * (1 - (1 - LEAST_CONTRAST) * severity))


def haze(image: Picture, severity: float, generator: np.random.Generator) -> Picture:
    """Bright, uneven fog in front of the picture, hiding up to `DENSEST` of it."""
    cells = generator.uniform(120, 255, (HAZE_CELLS, HAZE_CELLS)).astype(np.uint8)
    fog = np.asarray(Image.fromarray(cells).resize(image.shape[::-1], Image.Resampling.BICUBIC), np.float64)
    density = DENSEST * severity
    return _bytes(image * (1 - density) + fog * density)


def brightness(image: Picture, severity: float, generator: np.random.Generator) -> Picture:  # noqa: ARG001
    """Over-exposure: up to `GLARE_LEVELS` added, white clipped."""
    return _bytes(image + GLARE_LEVELS * severity)


def pixelate(image: Picture, severity: float, generator: np.random.Generator) -> Picture:  # noqa: ARG001
    """Fewer pixels, down to `COARSEST` by `COARSEST`, scaled back up."""
    height, width = image.shape
    size = tuple(round(side + (COARSEST - side) * severity) for side in (width, height))
    small = Image.fromarray(image).resize((size[0], size[1]), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def tilt(image: Picture, severity: float, generator: np.random.Generator) -> Picture:  # noqa: ARG001
    """A camera turned by up to `TILT_DEGREES`, black around the edges."""
    return np.asarray(Image.fromarray(image).rotate(TILT_DEGREES * severity, Image.Resampling.BILINEAR))


def occlusion(image: Picture, severity: float, generator: np.random.Generator) -> Picture:
    """A grey square of up to `PATCH_SHARE` of the side, somewhere new in each picture."""
    height, width = image.shape
    side = round(PATCH_SHARE * severity * min(height, width))
    top, left = int(generator.integers(0, height - side + 1)), int(generator.integers(0, width - side + 1))
    result = image.copy()
    result[top : top + side, left : left + side] = 128
    return result


def _bytes(values: NDArray[np.floating]) -> Picture:
    pixels: Picture = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "haze": haze,
    "brightness": brightness,
    "pixelate": pixelate,
    "tilt": tilt,
    "occlusion": occlusion,
}
