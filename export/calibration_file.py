"""Calibration samples from an `.npz` file: `x`, and `y` where there are labels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from acclimate.export.calibration import CalibrationData
from acclimate.export.errors import CalibrationError
from acclimate.export.graph import Array

ImageLayout = Literal["auto", "nchw", "nhwc"]
IMAGE_LAYOUTS: tuple[str, ...] = get_args(ImageLayout)
# Grey, grey with alpha, colour, colour with alpha: what `auto` takes an axis of this length for.
_MOST_CHANNELS = 4


def read_calibration(path: Path, layout: ImageLayout = "auto") -> CalibrationData:
    """Read `x`, and integers `y [N]` if the file has them.

    `x` is uint8 `[N, C, H, W]` or `[N, H, W, C]`, or token ids `[N, length]` of at least 32 bits.
    `auto` takes the second axis for the channels where it is at most 4 long, else the last one.

    Raises:
        CalibrationError: not an npz file, no `x`, an array of objects, or no axis that may be the channels.
    """
    try:
        # An .npy file loads as one array, and has no names to ask for.
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name in ("x", "y")}
    except OSError as error:
        raise CalibrationError(f"calibration: {str(path)!r} cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError, TypeError, AttributeError, KeyError) as error:
        raise CalibrationError(
            f"calibration: {str(path)!r} is not an .npz file of plain arrays; write it with np.savez(path, x=…, y=…)"
        ) from error
    if "x" not in arrays:
        raise CalibrationError(f"calibration: {str(path)!r} has no array 'x'; write it with np.savez(path, x=…, y=…)")
    x = arrays["x"]
    samples = x.astype(np.int64) if _are_token_ids(x) else _channels_first(x, layout)
    return CalibrationData(samples, arrays.get("y"))


def _are_token_ids(x: Array) -> bool:
    return x.ndim == 2 and x.dtype.kind in "iu" and x.dtype.itemsize >= 4


def _channels_first(x: Array, layout: ImageLayout) -> Array:
    if x.ndim != 4:
        raise CalibrationError(
            f"calibration: 'x' is {x.dtype} {list(x.shape)}; expected uint8 [N, C, H, W] or [N, H, W, C], or token "
            "ids int64 [N, length]"
        )
    if layout == "auto":
        if x.shape[1] > _MOST_CHANNELS and x.shape[3] > _MOST_CHANNELS:
            raise CalibrationError(
                f"calibration: 'x' is {list(x.shape)} and no axis looks like channels; say --layout nchw or nhwc"
            )
        layout = "nchw" if x.shape[1] <= _MOST_CHANNELS else "nhwc"
    return np.ascontiguousarray(x if layout == "nchw" else x.transpose(0, 3, 1, 2))
