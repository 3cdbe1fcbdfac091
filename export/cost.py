"""What a sample costs: operations counted on the graph, and milliseconds of one core of this host."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import onnx

from acclimate.export.graph import BATCH, Array, Graph
from acclimate.export.onnx_format import to_onnx
from acclimate.export.session import session

_REPEATS = 10


def flops(graph: Graph) -> float:
    """Operations per sample of a float graph; a multiply-accumulate counts as two, in integers as well.

    Only convolutions and matrix products by constants are counted; the rest is a few per cent of a network.
    """
    shapes = _shapes(graph)
    total = 0
    for node in graph.nodes:
        if node.op == "Conv":
            weight = shapes[node.inputs[1]]
            total += 2 * math.prod(weight[1:]) * math.prod(shapes[node.output][1:])
        elif node.op == "ConvTranspose":
            weight = shapes[node.inputs[1]]
            total += 2 * math.prod(weight[1:]) * math.prod(shapes[node.inputs[0]][1:])
        elif node.op in ("Gemm", "MatMul"):
            weight = shapes[node.inputs[1]]
            if BATCH not in weight and len(weight) == 2 and shapes[node.inputs[0]][-1] != BATCH:
                total += 2 * math.prod(weight) * math.prod(shapes[node.output][1:-1])
    return float(total)


def _shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors, the ones that passes added included."""
    inferred = onnx.shape_inference.infer_shapes(to_onnx(graph)).graph
    shapes = {name: array.shape for name, array in graph.constants.items()}
    shapes |= {name: value.shape for name, value in graph.values.items()}
    for info in (*inferred.value_info, *inferred.output):
        dims = info.type.tensor_type.shape.dim
        shapes.setdefault(info.name, tuple(d.dim_value if d.HasField("dim_value") else BATCH for d in dims))
    return shapes


def milliseconds(model: Graph, feeds: Mapping[str, Array], samples: int) -> float:
    """Processor time of one core per sample: the least of several calls on one thread.

    Processor rather than wall time, so that a busy host calibrates a budget as an idle one does.
    """
    running = session(model, threads=1)
    running.run(None, dict(feeds))
    times = []
    for _ in range(_REPEATS):
        start = time.thread_time()
        running.run(None, dict(feeds))
        times.append(time.thread_time() - start)
    return min(times) * 1e3 / samples
