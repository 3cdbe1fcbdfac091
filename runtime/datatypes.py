"""Open Inference datatypes as NumPy dtypes, and which of them an input takes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
"""What a bundle's inputs may be."""

# NumPy has no bfloat16: its bits travel in a field whose name says what they are.
BF16 = np.dtype([("bf16", np.uint16)])
BYTES = np.dtype(object)
SENT: dict[str, np.dtype[Any]] = DTYPES | {"BF16": BF16, "BYTES": BYTES}
"""What a client may send."""
WIDENED = {"FP32": ("FP16", "BF16")}
"""Datatypes that an input takes besides its own: those whose every value it can hold."""


def accepted(datatype: str) -> tuple[str, ...]:
    """Datatypes that an input of `datatype` takes, its own first."""
    return (datatype, *WIDENED.get(datatype, ()))


def name_of(tensor: NDArray[Any]) -> str:
    """The protocol's name of a tensor's datatype; NumPy's where it has none."""
    return _name(tensor.dtype)


@lru_cache(maxsize=64)
def _name(dtype: np.dtype[Any]) -> str:
    """Remembered: NumPy takes as long to name a dtype as a request's other checks together."""
    return next((name for name, sent in SENT.items() if sent == dtype), str(dtype))


def widened(tensor: NDArray[Any], datatype: str) -> NDArray[Any]:
    """A tensor of one of the `accepted` datatypes, in `datatype`; no value changes."""
    if tensor.dtype == BF16:
        bits = tensor["bf16"].astype(np.uint32) << 16
        return bits.view(np.float32).astype(DTYPES[datatype], copy=False)
    return tensor.astype(DTYPES[datatype], copy=False)
