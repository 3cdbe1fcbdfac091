"""Theta `[S, P]` as low-rank updates of the projections, each session's applied to its own rows in one product.

Projections that read the same input share one product with all their A, so a layer takes few and larger kernels. The
columns of theta are put into that order once per call; what leaves here is in the layout's order again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from acclimate.adapters.layout import Float, Kind, Layout
from acclimate.adapters.manifest import Lora
from acclimate.runtime.engines.torch_lm.options import PROJECTIONS

SEED = 20240501
GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
"""Projections that read the same input, in the order in which their outputs lie side by side."""


@dataclass(frozen=True, slots=True)
class Update:
    """What is added to one product of a layer: `scale * (x A^T) B^T` for every session at once.

    Attributes:
        a: `[S, R, in]`, the A of all its projections one below the other.
        b: for each projection `[S, out, r]`, or None: it is not updated.
    """

    a: Tensor
    b: tuple[Tensor | None, ...]


Updates = tuple[tuple[Update | None, ...], ...]
"""For every layer, of every group."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Widths of a model's projections: name -> (out, in)."""

    layers: int
    projections: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor of the row in its new order: which layer, group and projection it belongs to; -1: A of the group.

    A is `[R, in]`; B lies transposed, `[r, out]`, as products with it are fastest.
    """

    layer: int
    group: int
    member: int
    start: int
    shape: tuple[int, int]

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Plan:
    """How a model's theta is laid out, and where each tensor of it goes.

    `pairs` holds the rows of a rotated projection in the order that the forward pass turns them in (see `llama`).
    """

    sizes: Sizes
    targets: tuple[str, ...]
    rank: int
    alpha: float
    pairs: dict[str, list[int]]

    @property
    def scale(self) -> float:
        """What updates are multiplied by."""
        return self.alpha / self.rank

    @cached_property
    def modules(self) -> list[tuple[int, str, str]]:
        """`(layer, projection, module path)` in theta's order."""
        names = [name for name in PROJECTIONS if name in self.targets]
        return [
            (layer, name, f"model.layers.{layer}.{PROJECTIONS[name]}.{name}")
            for layer in range(self.sizes.layers)
            for name in names
        ]

    @cached_property
    def layout(self) -> Layout:
        """`<module>.lora_A.weight [r, in]` and `<module>.lora_B.weight [out, r]` of every module."""
        entries: list[tuple[str, Kind, tuple[int, ...]]] = []
        for _, name, module in self.modules:
            out, inputs = self.sizes.projections[name]
            entries.append((f"{module}.lora_A.weight", "lora.A", (self.rank, inputs)))
            entries.append((f"{module}.lora_B.weight", "lora.B", (out, self.rank)))
        return Layout.of(entries)

    @cached_property
    def lora(self) -> tuple[Lora, ...]:
        """The manifest's entries."""
        return tuple(
            Lora(module, f"{module}.lora_A.weight", f"{module}.lora_B.weight", self.rank, self.alpha)
            for _, _, module in self.modules
        )

    def initial(self) -> Float:
        """Theta `[P]` that changes nothing: A uniform as PEFT has it (Kaiming with a = sqrt 5), B zero."""
        random = np.random.default_rng(SEED)
        row = np.zeros(self.layout.size, np.float32)
        for entry in self.layout.slices:
            if entry.kind == "lora.A":
                bound = 1 / math.sqrt(entry.shape[1])
                row[entry.span] = random.uniform(-bound, bound, entry.size)
        return row

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """Every tensor of the reordered row, and with `order` where it comes from."""
        return self._arranged[0]

    @cached_property
    def order(self) -> Tensor:
        """Columns of theta in the new order `[P]`: `theta[:, order]`."""
        return torch.from_numpy(self._arranged[1])

    @cached_property
    def places(self) -> Tensor:
        """Where the columns of theta are in the new order `[P]`."""
        return torch.from_numpy(np.argsort(self._arranged[1]))

    @cached_property
    def _arranged(self) -> tuple[tuple[Piece, ...], np.ndarray]:
        spans = {entry.name: np.arange(entry.offset, entry.offset + entry.size) for entry in self.layout.slices}
        names = {(layer, name): module for layer, name, module in self.modules}
        pieces: list[Piece] = []
        columns: list[np.ndarray] = []

        def put(layer: int, group: int, member: int, taken: np.ndarray) -> None:
            start = pieces[-1].end if pieces else 0
            pieces.append(Piece(layer, group, member, start, (taken.shape[0], taken.shape[1])))
            columns.append(taken.reshape(-1))

        for layer in range(self.sizes.layers):
            for group, members in enumerate(GROUPS):
                present = [(number, name) for number, name in enumerate(members) if (layer, name) in names]
                if not present:
                    continue
                down = [spans[names[layer, name] + ".lora_A.weight"].reshape(self.rank, -1) for _, name in present]
                put(layer, group, -1, np.concatenate(down))
                for number, name in present:
                    up = spans[names[layer, name] + ".lora_B.weight"].reshape(-1, self.rank)
                    put(layer, group, number, (up[self.pairs[name]] if name in self.pairs else up).T)
        return tuple(pieces), np.concatenate(columns)

    def leaves(self, rows: Tensor) -> list[Tensor]:
        """Reordered rows `[S, P]` as tensors `[S, ...]`, one for each piece; views of the rows."""
        return [rows[:, piece.start : piece.end].unflatten(1, piece.shape) for piece in self.pieces]

    def updates(self, leaves: list[Tensor]) -> Updates:
        """The leaves by layer and group."""
        layers: list[list[Update | None]] = [[None] * len(GROUPS) for _ in range(self.sizes.layers)]
        for piece, leaf in zip(self.pieces, leaves, strict=True):
            if piece.member < 0:
                layers[piece.layer][piece.group] = Update(leaf, (None,) * len(GROUPS[piece.group]))
                continue
            update = layers[piece.layer][piece.group]
            assert update is not None  # noqa: S101 - A comes before B
            b = tuple(leaf.mT if number == piece.member else old for number, old in enumerate(update.b))
            layers[piece.layer][piece.group] = Update(update.a, b)
        return tuple(tuple(groups) for groups in layers)

    def restored(self, rows: Tensor) -> Tensor:
        """Reordered rows `[S, P]` in the layout's order."""
        return rows.index_select(1, self.places.to(rows.device))
