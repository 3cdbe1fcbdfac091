"""Matrices of the frozen base `[out, in]`, in the precision it is held in.

Each is a value without gradients of its own, shared by every session. `few(x)` multiplies a handful of rows, as
generation does, in the form that reads least memory, and on a processor gives each row the same numbers in any company;
`dense()` is the matrix in the working precision, for the products of learning, where taking it out of its 4 or 8 bits
costs a few percent of the product itself. Measured on two Zen 5 cores, 576 x 3072: 0.1 ms to take NF4 apart, 8 ms for
the product with 1024 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor

from acclimate.runtime.engines.torch_lm.kernels import Bytes, Nf4Rows

NF4_BLOCK = 64
INT4_GROUP = 32
FLOAT_ROWS, MOST_ROWS = 8, 32
"""Rows of a product in float32, always; and the most of one in bfloat16."""


class Weight(Protocol):
    """A matrix `[out, in]` of the base; `short`: rows up to which `few` beats the dense product, on a Zen 5 core."""

    short: ClassVar[int]

    @property
    def bytes(self) -> int:
        """Memory it occupies."""

    def dense(self) -> Tensor:
        """The matrix in the working precision."""

    def few(self, x: Tensor) -> Tensor:
        """`x [n, in]` times its transpose, for small n; without gradients."""


@dataclass(frozen=True, eq=False)
class Dense:
    """As it is: bfloat16 or float32."""

    short: ClassVar[int] = 64
    matrix: Tensor

    @property
    def bytes(self) -> int:
        """Memory it occupies."""
        return self.matrix.nbytes

    def dense(self) -> Tensor:
        """The matrix."""
        return self.matrix

    def few(self, x: Tensor) -> Tensor:
        """See `alike`."""
        return alike(x, self.matrix)


def alike(x: Tensor, matrix: Tensor) -> Tensor:
    """A product whose rows have the same sums in any company, on a processor.

    Which sums a row gets depends on how many rows there are: in float32 by fours on some processors and from sixteen
    on others, so these come as many at a time, always; in bfloat16 a single one has another kernel, and from 33 on
    processors with AMX add up some rows otherwise.
    """
    if x.is_cuda:
        return F.linear(x, matrix)
    if matrix.dtype == torch.float32:
        size, short = FLOAT_ROWS, -len(x) % FLOAT_ROWS
    else:
        size, short = MOST_ROWS, int(len(x) % MOST_ROWS == 1)
    filled = F.pad(x, (0, 0, 0, short)) if short else x
    if len(filled) <= size:
        return F.linear(filled, matrix)[: len(x)]
    return torch.cat([F.linear(part, matrix) for part in filled.split(size)])[: len(x)]


@dataclass(frozen=True, eq=False)
class Vocabulary(Dense):
    """The head. Where `rounded`, generation has it in eight bits besides, if the processor multiplies those."""

    rounded: bool

    @property
    def bytes(self) -> int:
        """Memory it occupies, in both of its forms."""
        return self.matrix.nbytes + (0 if self._in_bytes is None else self._in_bytes.bytes)

    def few(self, x: Tensor) -> Tensor:
        """Logits `[n, V]`, float32, after what the head reads `[n, width]`, float32."""
        if self._in_bytes is None:
            return super().few(x.to(self.matrix.dtype)).float()
        return self._in_bytes.times(x)

    @cached_property
    def _in_bytes(self) -> Bytes | None:
        return Bytes.of(self.matrix) if self.rounded else None


@dataclass(frozen=True, eq=False)
class Nf4:
    """4-bit NormalFloat in blocks of 64 (Dettmers et al. 2023, arXiv 2305.14314), as bitsandbytes packs it."""

    short: ClassVar[int] = 64
    packed: Tensor
    state: Any

    @classmethod
    def of(cls, matrix: Tensor) -> Nf4:
        """Quantise a bfloat16 matrix."""
        from bitsandbytes.functional import quantize_4bit

        packed, state = quantize_4bit(matrix.contiguous(), blocksize=NF4_BLOCK, quant_type="nf4")
        return cls(packed, state)

    @property
    def bytes(self) -> int:
        """Memory it occupies, in both of its orders."""
        again = 0 if self._in_rows is None else self._in_rows.bytes
        return int(self.packed.nbytes + self.state.absmax.nbytes) + again

    def dense(self) -> Tensor:
        """Taken apart into bfloat16."""
        from bitsandbytes.functional import dequantize_4bit

        matrix: Tensor = dequantize_4bit(self.packed, self.state)
        return matrix

    def few(self, x: Tensor) -> Tensor:
        """Straight from the four bits on processors with AVX512-BF16, and of one row on CUDA."""
        if self._in_rows is not None:
            return self._in_rows.times(x)
        if x.is_cuda and len(x) == 1:
            from bitsandbytes.functional import gemv_4bit

            product: Tensor = gemv_4bit(x, self.packed.t(), state=self.state)
            return product
        return alike(x, self.dense())

    @cached_property
    def _in_rows(self) -> Nf4Rows | None:
        """The order that the processor's kernel reads."""
        return Nf4Rows.of(self.packed, self.state)


@dataclass(frozen=True, eq=False)
class Int8:
    """Eight bits with a scale for each row of the matrix: the weights of LLM.int8 (Dettmers et al. 2022, 2208.07339).

    Activations stay bfloat16, so that nothing depends on what else is in the batch.
    """

    short: ClassVar[int] = 24
    numbers: Tensor
    scale: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Int8:
        """Quantise a matrix."""
        from bitsandbytes.functional import int8_vectorwise_quant

        # The library quantises float16; larger numbers than that has would be lost in it.
        numbers, largest, _ = int8_vectorwise_quant(matrix.to(torch.float16))
        return cls(numbers, (largest.float() / 127).to(torch.bfloat16))

    @property
    def bytes(self) -> int:
        """Memory it occupies."""
        return self.numbers.nbytes + self.scale.nbytes

    def dense(self) -> Tensor:
        """Taken apart into bfloat16."""
        return self.numbers.to(torch.bfloat16).mul_(self.scale[:, None])

    def few(self, x: Tensor) -> Tensor:
        """Straight from the eight bits on the processor."""
        if x.is_cuda:
            return F.linear(x, self.dense())
        product: Tensor = torch._weight_int8pack_mm(x, self.numbers, self.scale)
        return product


@dataclass(frozen=True, eq=False)
class Int4:
    """Four bits, a scale and a lowest number for each 32 along a row: the numbers of a GGUF file in Q4_1."""

    short: ClassVar[int] = 128
    numbers: Tensor
    grid: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Int4:
        """Quantise a matrix; one that was in Q4_1 keeps its numbers."""
        out, inputs = matrix.shape
        groups = matrix.float().reshape(out, inputs // INT4_GROUP, INT4_GROUP)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        scale = ((high - low) / 15).clamp_min(1e-10)
        numbers = ((groups - low) / scale).round_().clamp_(0, 15).to(torch.uint8).reshape(out, inputs)
        # torch's kernel has w = (n - 8) scale + zero.
        grid = torch.cat([scale, low + 8 * scale], -1).to(torch.bfloat16)
        return cls(numbers[:, 0::2] | numbers[:, 1::2] << 4, grid)

    @property
    def bytes(self) -> int:
        """Memory it occupies, in both of its orders."""
        return self.numbers.nbytes + self.grid.nbytes + sum(part.nbytes for part in self._in_tiles)

    def dense(self) -> Tensor:
        """Taken apart into bfloat16."""
        out, half = self.numbers.shape
        numbers = torch.stack([self.numbers & 15, self.numbers >> 4], -1).reshape(out, 2 * half // INT4_GROUP, -1)
        return (numbers.to(torch.bfloat16) - 8).mul_(self.grid[..., :1]).add_(self.grid[..., 1:]).reshape(out, 2 * half)

    def few(self, x: Tensor) -> Tensor:
        """Straight from the four bits on the processor."""
        if x.is_cuda:
            return F.linear(x, self.dense())
        tiles, grid = self._in_tiles
        product: Tensor = torch._weight_int4pack_mm_for_cpu(x, tiles, INT4_GROUP, grid)
        return product

    @cached_property
    def _in_tiles(self) -> tuple[Tensor, Tensor]:
        """The order that torch's kernel reads, and the scales in its: `[groups, out, 2]`."""
        numbers = torch.stack([self.numbers & 15, self.numbers >> 4], -1).flatten(1).to(torch.int32)
        tiles = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, 1)
        return tiles, self.grid.transpose(0, 1).contiguous()


MAKERS: dict[str, Callable[[Tensor], Weight]] = {
    "nf4": lambda matrix: Nf4.of(matrix.to(torch.bfloat16)),
    "int8": Int8.of,
    "int4": Int4.of,
    "bf16": lambda matrix: Dense(matrix.to(torch.bfloat16)),
    "fp32": lambda matrix: Dense(matrix.to(torch.float32)),
}
