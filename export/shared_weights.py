"""The arrays that several graphs of a bundle read, written once: `weights.safetensors`.

The graphs refer to them as ONNX external data (file, offset, length), which a safetensors file allows because its
tensors lie uncompressed behind the header (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import save

from acclimate.export.graph import Array, Graph
from acclimate.export.onnx_format import Place

LEAST_BYTES = 512
"""A smaller array costs more as an entry of the file than as copies in the graphs."""


@dataclass(frozen=True)
class SharedWeights:
    """The file's bytes, and where each constant lies in it."""

    content: bytes
    places: Mapping[str, Place]


def shared_weights(graphs: Iterable[Graph]) -> SharedWeights:
    """Constants that at least two graphs hold under one name with the same values; empty where there are none."""
    copies: dict[str, list[Array]] = {}
    for graph in graphs:
        for name, array in graph.constants.items():
            if array.nbytes >= LEAST_BYTES and name not in graph.inputs:
                copies.setdefault(name, []).append(array)
    chosen = {name: arrays[0] for name, arrays in copies.items() if len(arrays) > 1 and _equal(arrays)}
    if not chosen:
        return SharedWeights(b"", {})
    content = save({name: np.ascontiguousarray(array) for name, array in chosen.items()})
    return SharedWeights(content, _places(content))


def _equal(arrays: list[Array]) -> bool:
    first = arrays[0]
    return all(
        other is first or (other.dtype == first.dtype and other.shape == first.shape and np.array_equal(other, first))
        for other in arrays[1:]
    )


def _places(content: bytes) -> dict[str, Place]:
    """From the header: its length in eight bytes, then JSON, then the data that its offsets count from."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    spans = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: Place(8 + size + start, end - start) for name, (start, end) in spans.items()}
