"""From the texts of the command line to what the compiler takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from acclimate.export.calibration_file import IMAGE_LAYOUTS, ImageLayout
from acclimate.export.errors import CalibrationError, ExportError
from acclimate.export.spec import BundleSpec
from acclimate.export.trace import Preprocessing

ADAPTABLE = ("norm",)


def image_layout(layout: str) -> ImageLayout:
    """One of the layouts.

    Raises:
        ExportError: it is none of them.
    """
    if layout not in IMAGE_LAYOUTS:
        raise ExportError(f"layout: {layout!r} is not one of {list(IMAGE_LAYOUTS)}")
    return cast(ImageLayout, layout)


def refuse_unknown_adaptation(adapt: str) -> None:
    """Raise for parameters that this exporter cannot make adaptable."""
    if adapt not in ADAPTABLE:
        raise ExportError(f"adapt: {adapt!r} is not offered here; use one of {list(ADAPTABLE)}")


def numbers(option: str, text: str, channels: int) -> tuple[float, ...]:
    """Comma-separated numbers, one for every channel or one for all.

    Raises:
        ExportError: not numbers, or another count.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ExportError(f"{option}: {text!r} is not a comma-separated list of numbers") from error
    if len(values) not in (1, channels):
        raise ExportError(f"{option}: {len(values)} values for samples with {channels} channels; give 1 or {channels}")
    return values * channels if len(values) == 1 else values


def preprocessing(mean: str, std: str, scale: float, channels: int) -> Preprocessing:
    """From a client's uint8 pixels to the model's input.

    Raises:
        ExportError: counts do not fit, or a standard deviation or the scale is not positive.
    """
    spread = numbers("std", std, channels)
    if min(*spread, scale) <= 0:
        raise ExportError(f"std and scale must be positive; they are {list(spread)} and {scale}")
    return Preprocessing(numbers("mean", mean, channels), spread, scale)


def labels(classes: str | None, count: Callable[[], int]) -> tuple[str, ...]:
    """Class labels from a list or a file; numbers where nothing is given.

    Raises:
        CalibrationError: fewer than two, one twice, or not as many as the model has.
    """
    found = count()
    if classes is None:
        return tuple(str(index) for index in range(found))
    file = Path(classes)
    text = file.read_text(encoding="utf-8").splitlines() if file.is_file() else classes.split(",")
    names = tuple(name.strip() for name in text if name.strip())
    if len(set(names)) != len(names) or len(names) != found:
        raise CalibrationError(
            f"classes: {len(set(names))} different names were given; the model returns {found} logits"
        )
    return names


def bundle_spec(
    name: str, classes: tuple[str, ...], sites: list[str] | None, headroom: float, pixels: Preprocessing
) -> BundleSpec:
    """The choices of one export; no glob means every norm."""
    return BundleSpec(name=name, classes=classes, preprocessing=pixels, sites=tuple(sites or ("*",)), headroom=headroom)
