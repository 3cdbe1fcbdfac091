"""Running a graph with ONNX Runtime while exporting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from acclimate.export.graph import BATCH, Array, Graph, Node, Value
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
    if _saturates():
        # As the engine serves it (acclimate/runtime/engines/onnx_exact.py).
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@cache
def _saturates() -> bool:
    """Whether the largest uint8 x int8 products do not add up to what they should on this processor."""
    left, right = np.full((8, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    inputs = {"a": Value(left.dtype, (BATCH, 64)), "b": Value(right.dtype, right.shape)}
    outputs = {"y": Value(np.dtype(np.int32), (BATCH, 16))}
    graph = Graph(inputs, outputs, nodes=[Node("MatMulInteger", ("a", "b"), ("y",))], values=inputs | outputs)
    probe = onnxruntime.InferenceSession(to_onnx(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    return bool((probe.run(None, {"a": left, "b": right})[0] != 255 * 127 * 64).any())


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
