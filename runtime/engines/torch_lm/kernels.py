"""Products of a few rows that torch and bitsandbytes have for processors without promising them.

Each is tried once, on a small matrix with the largest numbers there are, before it is relied on: where it is missing or
its sums are wrong (eight bits saturate on processors without VNNI) it is done without. Both take rows one by one, so
that what a row gives does not depend on its company.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

NF4_SYMBOL = "gemv_4bit_inference_cpu_nf4_bf16"
NF4_VERSIONS = ("0.50.",)
"""Versions of bitsandbytes whose kernel is called by its symbol; others are asked through their public function, which
takes 25 microseconds more, as much as the product itself."""
ROWS_AT_ONCE = 32
FINE = 254
"""Parts of a unit in the second eight bits of an activation."""

_Nf4Call = Callable[..., None]


@dataclass(frozen=True, eq=False)
class Nf4Rows:
    """A matrix in NF4 in the order that bitsandbytes' kernel for AVX512-BF16 reads: `[out / 32, in / 2, 32]`."""

    packed: Tensor
    state: Any

    @classmethod
    def of(cls, packed: Tensor, state: Any) -> Nf4Rows | None:
        """Put it into that order; None where there is no such kernel, or the matrix does not fit it."""
        out, inputs = state.shape
        if packed.is_cuda or out % ROWS_AT_ONCE or inputs % state.blocksize or not _nf4_works():
            return None
        return cls(*_nf4_converted(packed, state))

    @property
    def bytes(self) -> int:
        """Memory it occupies."""
        return int(self.packed.nbytes + self.state.absmax.nbytes)

    def times(self, x: Tensor) -> Tensor:
        """`x [n, in]` bfloat16 times its transpose."""
        call = _nf4_call()
        if call is None:
            from bitsandbytes.functional import gemv_4bit

            product: Tensor = gemv_4bit(x, self.packed, state=self.state)
            return product
        x, rows, (outs, packed, scales, sizes) = x.contiguous(), ctypes.c_int64(len(x)), self._fixed
        out = torch.empty(len(x), outs.value, dtype=torch.bfloat16)
        read, written = (ctypes.c_void_p(part.data_ptr()) for part in (x, out))
        call(rows, outs, sizes[1], read, packed, scales, written, *sizes)
        return out

    @cached_property
    def _fixed(self) -> tuple[ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, list[ctypes.c_int64]]:
        """Arguments that do not change: the last ones are the block, and the strides of what is read and written."""
        outs, inputs = self.state.shape
        packed, scales = (ctypes.c_void_p(part.data_ptr()) for part in (self.packed, self.state.absmax))
        sizes = [ctypes.c_int64(size) for size in (self.state.blocksize, inputs, outs)]
        return ctypes.c_int64(outs), packed, scales, sizes


@cache
def _nf4_call() -> _Nf4Call | None:
    """The kernel itself, of a version whose arguments are known."""
    import bitsandbytes
    from bitsandbytes.cextension import lib

    known = str(bitsandbytes.__version__).startswith(NF4_VERSIONS)
    call: _Nf4Call | None = getattr(lib, NF4_SYMBOL, None) if known else None
    return call


def _nf4_converted(packed: Tensor, state: Any) -> tuple[Tensor, Any]:
    from bitsandbytes.functional import _convert_weight_packed_for_cpu

    converted: tuple[Tensor, Any] = _convert_weight_packed_for_cpu(packed.clone(), copy.deepcopy(state))
    return converted


@cache
def _nf4_works() -> bool:
    from bitsandbytes.functional import dequantize_4bit, has_avx512bf16, quantize_4bit

    try:
        if not has_avx512bf16():  # type: ignore[no-untyped-call]
            return False
        matrix = torch.linspace(-3, 3, 64 * 128).reshape(64, 128).sin().to(torch.bfloat16)
        packed, state = quantize_4bit(matrix, blocksize=64, quant_type="nf4")
        x = torch.linspace(-2, 2, 3 * 128).reshape(3, 128).cos().to(torch.bfloat16)
        exact = x.float() @ dequantize_4bit(packed, state).float().T
        got = Nf4Rows(*_nf4_converted(packed, state)).times(x)
        return bool((got.float() - exact).norm() < 0.01 * exact.norm())
    except (ImportError, AttributeError, RuntimeError, TypeError):
        return False


@dataclass(frozen=True, eq=False)
class Bytes:
    """A matrix `[out, in]` in eight bits with a scale for each row; activations in twice eight, sums exact integers."""

    numbers: Tensor
    scale: Tensor
    zeros: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, matrix: Tensor) -> Bytes | None:
        """Round a matrix; None where the processor has no such product."""
        return cls._of(matrix) if not matrix.is_cuda and _bytes_work() else None

    @classmethod
    def _of(cls, matrix: Tensor) -> Bytes:
        scale = matrix.abs().amax(1).float().clamp_min_(1e-30) / 127
        numbers = (matrix / scale[:, None]).round_().to(torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(numbers, None)
        return cls(packed, scale, torch.zeros(len(scale), dtype=torch.int64), (matrix.shape[0], matrix.shape[1]))

    @property
    def bytes(self) -> int:
        """Memory it occupies."""
        return self.shape[0] * self.shape[1] + self.scale.nbytes + self.zeros.nbytes

    def times(self, x: Tensor) -> Tensor:
        """`x [n, in]` float32 times its transpose, in float32."""
        unit = x.abs().amax(1, keepdim=True).clamp_min_(1e-30) / 127
        units = x / unit
        coarse = units.round()
        fine = (units - coarse).mul_(FINE).round_()
        both = torch.cat([coarse, fine]).add_(128).to(torch.uint8)
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            both, 1.0, 128, self.numbers, self.scale, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return out[: len(x)].add_(out[len(x) :], alpha=1 / FINE).mul_(unit)


@cache
def _bytes_work() -> bool:
    try:
        matrix = torch.linspace(-1, 1, 16 * 64).reshape(16, 64)
        matrix[0], matrix[1] = 127.0, -127.0
        x = torch.stack([torch.full((64,), 1.0), torch.linspace(-1, 1, 64)])
        made = Bytes._of(matrix)
        rounded = (matrix / made.scale[:, None]).round() * made.scale[:, None]
        return bool(((made.times(x) - x @ rounded.T).abs() < 1e-3 * (x.abs() @ rounded.abs().T)).all())
    except (AttributeError, RuntimeError, TypeError):
        return False
