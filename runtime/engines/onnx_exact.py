"""Whether this processor's int8 products are exact, found by trying one.

Without VNNI, ONNX Runtime's kernels for x86 add two uint8 x int8 products in 16 bits, where 2 x 255 x 127 does not fit.
It can turn int8 weights into uint8 when it loads a graph and is exact then, half as slow again. On processors with
VNNI, where nothing saturates, the same switch gives the fast kernels up and takes six times as long; so it is thrown
only where it is needed.
"""

from __future__ import annotations

import base64
from functools import cache

import numpy as np
import onnxruntime as ort

EXACT = "session.x64quantprecision"
ROWS, DEPTH, COLUMNS = 8, 64, 16
# `y = MatMulInteger(a uint8 [8, 64], b int8 [64, 16])`, opset 13; tests/runtime/test_exact.py reads it back.
PROBE = base64.b64decode(
    "CAgSADpgChgKAWEKAWISAXkiDU1hdE11bEludGVnZXISBXByb2JlWhMKAWESDgoMCAISCAoCCAgKAghAWhMKAWISDgoMCAMSCAoC"
    "CEAKAggQYhMKAXkSDgoMCAYSCAoCCAgKAggQQgQKABAN"
)


@cache
def saturates() -> bool:
    """Whether the largest products of uint8 and int8 do not add up to what they should on the CPU."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(PROBE, settings, providers=["CPUExecutionProvider"])
    largest = {"a": np.full((ROWS, DEPTH), 255, np.uint8), "b": np.full((DEPTH, COLUMNS), 127, np.int8)}
    (found,) = session.run(None, largest)
    return bool((found != 255 * 127 * DEPTH).any())
