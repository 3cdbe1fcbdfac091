"""Running a graph with ONNX Runtime while exporting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from acclimate.export.graph import Array, Graph
from acclimate.export.onnx_format import to_onnx
from acclimate.export.progress import counted

BATCH_SIZE = 64


def session(
    model: Graph | bytes | Path, extra_outputs: Iterable[str] = (), threads: int = 0
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU; no `threads` means one for each core.

    A path, not its bytes, where weights lie in a file beside the graph.
    """
    if isinstance(model, Graph):
        model = to_onnx(model, extra_outputs=extra_outputs).SerializeToString()
    content = str(model) if isinstance(model, Path) else model
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(running: onnxruntime.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """One call; outputs by name."""
    names = [output.name for output in running.get_outputs()]
    return dict(zip(names, running.run(names, dict(feeds)), strict=True))


def batches(count: int, size: int = BATCH_SIZE) -> list[slice]:
    """Slices that cut `count` samples into batches."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def first_output(running: onnxruntime.InferenceSession, inputs: Array, **fixed: Array) -> NDArray[np.float32]:
    """The first output for all samples, batch by batch; `fixed` feeds are the same for every batch."""
    name = running.get_inputs()[0].name
    parts = [running.run(None, {name: inputs[rows], **fixed})[0] for rows in counted(batches(len(inputs)), "batches")]
    return np.concatenate(parts)
