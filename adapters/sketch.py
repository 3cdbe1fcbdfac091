"""What inputs look like, in a few numbers a sample that cost no pass of a model: enough to see a lens fog up.

A shift of pictures shows in their brightness, contrast and fine structure long before a model that was adapted to the
shift before says so: its entropy may stay where it was while its errors double.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.layout import Float

SIZE = 7
_CHANNELS = 4


def sketch(inputs: NDArray[Any]) -> Float:
    """Logarithms `[B, 7]` of one plus: mean, deviation, and what neighbours differ by.

    The last five are mean and root mean square of the differences along the last two axes, and the mean difference of
    next but one neighbours; root mean squares weigh few large differences, such as impulse noise, more. Samples of
    more than two axes are taken for pictures, of which one channel is looked at; of samples without a second axis the
    differences along it are 0.
    """
    plane = _plane(inputs).astype(np.float32)
    flat = plane.reshape(len(plane), -1)
    across, down = plane[:, :, 1:] - plane[:, :, :-1], plane[:, 1:] - plane[:, :-1]
    apart = plane[:, :, 2:] - plane[:, :, :-2]
    overall = [np.abs(flat.mean(axis=1)), flat.std(axis=1)]
    fine = [_mean(across), _root(across), _mean(down), _root(down), _mean(apart)]
    result: Float = np.log1p(np.stack(overall + fine, axis=1)).astype(np.float32)
    return result


def _plane(inputs: NDArray[Any]) -> NDArray[Any]:
    """Rows `[B, H, W]` of inputs `[B, ...]`: a picture's middle channel, else H is 1 or what there is."""
    if inputs.ndim <= 2:
        return inputs.reshape(len(inputs), 1, -1)
    if inputs.ndim == 3:
        return inputs
    if inputs.shape[-1] <= _CHANNELS < inputs.shape[1]:
        inputs = inputs[..., inputs.shape[-1] // 2]
    else:
        inputs = inputs[:, inputs.shape[1] // 2]
    return inputs.reshape(len(inputs), -1, inputs.shape[-1])


def _mean(differences: Float) -> Float:
    flat = np.abs(differences.reshape(len(differences), -1))
    result: Float = flat.mean(axis=1) if flat.shape[1] else np.zeros(len(flat), np.float32)
    return result


def _root(differences: Float) -> Float:
    flat = differences.reshape(len(differences), -1)
    result: Float = np.sqrt(np.einsum("ij,ij->i", flat, flat) / max(flat.shape[1], 1))
    return result
