"""From the texts of the command line to what the compiler takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

from acclimate.export.adaptation import Adaptation, Biases, LowRank, Norms
from acclimate.export.calibration_file import IMAGE_LAYOUTS, ImageLayout
from acclimate.export.errors import CalibrationError, ExportError
from acclimate.export.spec import BundleSpec
from acclimate.export.trace import Preprocessing
from acclimate.export.variants import checked_precisions

Number = TypeVar("Number", int, float)
_KEYS: dict[str, tuple[str, ...]] = {"norm": (), "bias": ("targets",), "lora": ("r", "alpha", "targets")}


def image_layout(layout: str) -> ImageLayout:
    """One of the layouts.

    Raises:
        ExportError: it is none of them.
    """
    if layout not in IMAGE_LAYOUTS:
        raise ExportError(f"layout: {layout!r} is not one of {list(IMAGE_LAYOUTS)}")
    return cast(ImageLayout, layout)


def adaptations(texts: Sequence[str] | None) -> tuple[Adaptation, ...]:
    """What `--adapt` names: `norm`, `bias:targets=GLOB`, `lora:r=8,alpha=16,targets=GLOB|GLOB`.

    Several are joined by `+`, or given one by one.

    Raises:
        ExportError: another word, an unknown key, or a value that is none.
    """
    parts = [part.strip() for text in texts or ("norm",) for part in text.split("+")]
    return tuple(dict.fromkeys(_adaptation(part) for part in parts))


def _adaptation(text: str) -> Adaptation:
    kind, colon, rest = text.partition(":")
    if kind not in _KEYS:
        raise ExportError(f"adapt: {text!r} is not offered; use one of {list(_KEYS)}")
    if kind == "norm":
        if colon:
            raise ExportError(f"adapt: {text!r}: norm takes no options; choose norms with --sites")
        return Norms()
    options: dict[str, str] = {}
    for option in rest.split(",") if rest else []:
        key, equals, value = option.partition("=")
        if key not in _KEYS[kind] or not equals or key in options:
            raise ExportError(f"adapt: {option!r} in {text!r} is not a KEY=VALUE of {list(_KEYS[kind])}, each once")
        options[key] = value
    globs = tuple(glob for glob in options.get("targets", "*").split("|") if glob)
    if not globs:
        raise ExportError(f"adapt: targets in {text!r} is empty; give globs separated by '|', or leave it out")
    if kind == "bias":
        return Biases(globs)
    rank, alpha = options.get("r", "8"), options.get("alpha")
    return LowRank(_number("r", rank, int), None if alpha is None else _number("alpha", alpha, float), globs)


def _number(key: str, value: str, kind: Callable[[str], Number]) -> Number:
    try:
        return kind(value)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise ExportError(f"lora: {key} is {value!r}; give {wanted}") from error


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
    name: str,
    classes: tuple[str, ...],
    sites: list[str] | None,
    headroom: float,
    pixels: Preprocessing,
    adapt: tuple[Adaptation, ...] = (Norms(),),
    precisions: Sequence[str] | None = None,
) -> BundleSpec:
    """The choices of one export; no glob means every norm.

    Raises:
        ExportError: globs over norms where no norm is to adapt, or a precision that is not known.
    """
    if sites and Norms() not in adapt:
        raise ExportError(f"sites: {sites} choose norms, but --adapt names none; add --adapt norm")
    globs = tuple(sites or ("*",))
    return BundleSpec(
        name=name,
        classes=classes,
        preprocessing=pixels,
        sites=globs,
        headroom=headroom,
        adapt=adapt,
        precisions=checked_precisions(precisions or ()),
    )
