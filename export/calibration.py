"""The samples that a bundle is calibrated and checked on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.export.errors import CalibrationError
from acclimate.export.graph import Array

LEAST = 16


@dataclass(frozen=True)
class CalibrationData:
    """Source samples as clients would send them, with labels `[N]` or None.

    Images are `[N, C, H, W]` uint8; texts are token ids `[N, length]` int64, padded to the one length that is served.
    """

    inputs: Array
    labels: NDArray[np.int64] | None = None


def checked(data: CalibrationData, classes: int) -> CalibrationData:
    """The same data, if it can be used.

    Raises:
        CalibrationError: wrong dtype or rank, too few samples, labels that do not fit.
    """
    inputs, labels = data.inputs, data.labels
    if (inputs.dtype.name, inputs.ndim) not in (("uint8", 4), ("int64", 2)):
        raise CalibrationError(
            f"calibration: inputs are {inputs.dtype} {list(inputs.shape)}; "
            "give raw uint8 images [N, C, H, W] or int64 token ids [N, length]"
        )
    if len(inputs) < LEAST:
        raise CalibrationError(f"calibration: {len(inputs)} samples; give at least {LEAST}, better 500")
    if labels is None:
        return data
    if labels.shape != (len(inputs),) or labels.dtype.kind not in "iu":
        raise CalibrationError(
            f"calibration: labels are {labels.dtype} {list(labels.shape)}; expected integers [{len(inputs)}]"
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise CalibrationError(
            f"calibration: label {int(wrong[0])} is outside 0..{classes - 1}; the model has {classes} classes"
        )
    return CalibrationData(inputs, labels.astype(np.int64))
