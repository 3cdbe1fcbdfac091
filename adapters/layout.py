"""Where each named tensor lies in a flat row: `theta [P]` and `stats [Q]` are both described by a layout.

A session's parameters are one flat float32 row, so that creating, forking, snapshotting and rolling back
are copies, and a batch that mixes sessions is a gather.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.errors import LayoutError

Float = NDArray[np.float32]
Kind = Literal["norm.scale", "norm.shift", "norm.mean", "norm.var", "lora.A", "lora.B", "bias"]
KINDS: frozenset[str] = frozenset(get_args(Kind))


@dataclass(frozen=True, slots=True)
class Slice:
    """One named tensor inside a flat row: `row[offset : offset + size].reshape(shape)`."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def span(self) -> slice:
        """The columns of a flat row that this tensor occupies."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Layout:
    """An ordered, gap-free sequence of slices over one flat float32 row.

    Raises:
        LayoutError: names repeat, a kind is unknown, or offsets leave gaps or overlap.
    """

    slices: tuple[Slice, ...]

    def __post_init__(self) -> None:
        expected = 0
        seen: set[str] = set()
        for entry in self.slices:
            if entry.name in seen:
                raise LayoutError(f"layout: name {entry.name!r} appears twice; names must be unique")
            if entry.kind not in KINDS:
                raise LayoutError(f"layout: {entry.name!r} has kind {entry.kind!r}; use one of {sorted(KINDS)}")
            if entry.offset != expected:
                raise LayoutError(f"layout: {entry.name!r} starts at {entry.offset}; expected {expected}")
            seen.add(entry.name)
            expected += entry.size

    @classmethod
    def of(cls, entries: Iterable[tuple[str, Kind, tuple[int, ...]]]) -> Layout:
        """Lay `(name, kind, shape)` entries out one after the other."""
        slices, offset = [], 0
        for name, kind, shape in entries:
            slices.append(Slice(name, kind, tuple(shape), offset))
            offset += slices[-1].size
        return cls(tuple(slices))

    @cached_property
    def size(self) -> int:
        """Elements in a row: P for parameters, Q for statistics."""
        return sum(entry.size for entry in self.slices)

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of names, kinds and shapes; equal digests mean interchangeable rows."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()

    def pack(self, tensors: Mapping[str, NDArray[Any]]) -> Float:
        """Flatten named tensors into one float32 row `[size]`.

        Raises:
            LayoutError: a tensor is missing, unknown, or of another shape.
        """
        unknown = set(tensors) - {entry.name for entry in self.slices}
        if unknown:
            raise LayoutError(f"layout: unknown tensors {sorted(unknown)}")
        row = np.empty(self.size, np.float32)
        for entry in self.slices:
            if entry.name not in tensors:
                raise LayoutError(f"layout: tensor {entry.name!r} is missing")
            tensor = np.asarray(tensors[entry.name])
            if tensor.shape != entry.shape:
                raise LayoutError(f"layout: {entry.name!r} has shape {tensor.shape}; expected {entry.shape}")
            row[entry.span] = tensor.reshape(-1)
        return row

    def unpack(self, row: Float) -> dict[str, Float]:
        """Split one row `[size]` into named views of their own shapes.

        Raises:
            LayoutError: the row has another length.
        """
        if row.shape != (self.size,):
            raise LayoutError(f"layout: row has shape {row.shape}; expected ({self.size},)")
        return {entry.name: row[entry.span].reshape(entry.shape) for entry in self.slices}

    def columns(self, kind: Kind) -> NDArray[np.intp]:
        """Column indices of every slice of a kind, in layout order."""
        spans = [np.arange(entry.offset, entry.offset + entry.size) for entry in self.slices if entry.kind == kind]
        return np.concatenate(spans) if spans else np.empty(0, np.intp)

    def to_json(self) -> list[dict[str, Any]]:
        """The layout as JSON values, in order."""
        return [
            {"name": entry.name, "kind": entry.kind, "shape": list(entry.shape), "offset": entry.offset}
            for entry in self.slices
        ]

    @classmethod
    def from_json(cls, entries: Iterable[Mapping[str, Any]]) -> Layout:
        """Inverse of `to_json`.

        Raises:
            LayoutError: an entry misses a field or the offsets do not line up.
        """
        try:
            return cls(
                tuple(
                    Slice(str(e["name"]), e["kind"], tuple(int(n) for n in e["shape"]), int(e["offset"]))
                    for e in entries
                )
            )
        except (KeyError, TypeError) as error:
            raise LayoutError(f"layout: malformed entry ({error})") from error
