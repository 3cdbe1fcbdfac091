"""Gradients on the graph against two reverse modes of other authors, `onnx-ad` and onnxsim's `graph_grad`.

Both differentiate the file itself, with the norms' gains and shifts made inputs and running statistics in use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ad
import onnxsim
import pytest
from onnx import helper, inliner, numpy_helper
from onnxsim import graph_grad, qat_graph
from torch import nn

from acclimate.export.backward.vjp import ALPHA, COTANGENT, GRAD_THETA, MIX, STATS, THETA, vjp_graph
from acclimate.export.onnx_check import preprocessed
from acclimate.export.onnx_format import OPSET
from acclimate.export.passes.sites import with_sites
from acclimate.export.session import run, session
from tests.export.nets import PREPROCESSING, SHAPE, odd_net, pictures
from tests.export.test_onnx_import import plain, read, saved

BATCH = 6
Gradients = dict[str, np.ndarray]


@dataclass(frozen=True)
class Opened:
    """A file of known shapes whose norms' affines are inputs, and the arrays that these inputs get."""

    proto: onnx.ModelProto
    affines: dict[str, np.ndarray]
    logits: str


def opened(path: Path) -> Opened:
    proto = onnx.version_converter.convert_version(onnx.load(path), OPSET)
    graph = proto.graph
    if graph.node[-1].op_type == "Softmax":
        graph.node.remove(graph.node[-1])
    logits = graph.node[-1].output[0]
    names = [name for node in graph.node if node.op_type == "BatchNormalization" for name in node.input[1:3]]
    entries = [entry for entry in graph.initializer if entry.name in names]
    affines = {entry.name: numpy_helper.to_array(entry) for entry in entries}
    for entry in entries:
        graph.initializer.remove(entry)
    del graph.input[:], graph.output[:], graph.value_info[:]
    shapes = {"image": (BATCH, *SHAPE)} | {name: array.shape for name, array in affines.items()}
    graph.input.extend(helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items())
    graph.output.append(helper.make_tensor_value_info(logits, 1, (BATCH, 3)))
    return Opened(onnx.shape_inference.infer_shapes(proto), affines, logits)


def by_onnx_ad(model: Opened, feeds: Gradients, cotangent: np.ndarray) -> Gradients:
    running = session(onnx_ad.reverse(model.proto).SerializeToString())
    (seed,) = (entry.name for entry in running.get_inputs() if entry.name not in feeds)
    # One direction: the seed is [rows, outputs * directions].
    theirs = run(running, feeds | {seed: cotangent})
    return {name: theirs[f"adj_{name}"][:, 0] for name in model.affines}


def by_onnxsim(model: Opened, feeds: Gradients, cotangent: np.ndarray) -> Gradients:
    simple, _ = onnxsim.simplify(model.proto)
    proto = onnx.shape_inference.infer_shapes(in_its_operators(simple))
    graph, builder = proto.graph, qat_graph.GraphBuilder(prefix="back_")
    known = (*graph.input, *graph.output, *graph.value_info)
    shapes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in known}
    shapes |= {entry.name: list(entry.dims) for entry in graph.initializer}
    found = graph_grad.build_backward(builder, list(graph.node), shapes, {model.logits: "seed"}, list(model.affines))
    graph.node.extend(builder.nodes)
    graph.initializer.extend(builder.initializer)
    graph.input.append(helper.make_tensor_value_info("seed", 1, (BATCH, 3)))
    graph.output.extend(helper.make_tensor_value_info(found[name], 1, None) for name in model.affines)
    proto.functions.extend(builder.functions)
    domains = {function.domain for function in proto.functions} - {entry.domain for entry in proto.opset_import}
    proto.opset_import.extend(helper.make_opsetid(domain, 1) for domain in domains)
    running = session(inliner.inline_local_functions(proto).SerializeToString())
    theirs = run(running, feeds | {"seed": cotangent})
    return {name: theirs[found[name]] for name in model.affines}


def in_its_operators(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Constants as initializers and Flatten as Reshape: onnxsim 0.8.1 has no rules for the two."""
    rows = numpy_helper.from_array(np.array([BATCH, -1]), "flat_rows")
    proto.graph.initializer.append(rows)
    for node in list(proto.graph.node):
        if node.op_type == "Constant":
            value = numpy_helper.to_array(node.attribute[0].t)
            proto.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
            proto.graph.node.remove(node)
        elif node.op_type == "Flatten":
            node.CopyFrom(helper.make_node("Reshape", [node.input[0], rows.name], node.output))
    return proto


@pytest.mark.parametrize(
    ("make", "oracle"),
    # onnx-ad 0.3 has no Slice with steps, onnxsim no computed pads: the shortcut of `tiny_net` has both.
    [(plain, by_onnx_ad), (odd_net, by_onnx_ad), (plain, by_onnxsim), (odd_net, by_onnxsim)],
)
def test_gradients_are_those_of_others(
    make: Callable[[], nn.Module], oracle: Callable[[Opened, Gradients, np.ndarray], Gradients], tmp_path: Path
) -> None:
    path = saved(make(), tmp_path / "model.onnx")
    images = pictures(BATCH)
    cotangent = np.random.default_rng(2).standard_normal((BATCH, 3)).astype(np.float32)
    file = opened(path)
    theirs = oracle(file, file.affines | {"image": preprocessed(images, PREPROCESSING)}, cotangent)
    model = with_sites(read(path).graph)
    rows = {
        "image": images,
        THETA: np.tile(model.theta, (BATCH, 1)),
        STATS: np.tile(model.stats, (BATCH, 1)),
        MIX: np.full((BATCH, BATCH), 1 / BATCH, np.float32),
        ALPHA: np.zeros(BATCH, np.float32),
        COTANGENT: cotangent,
    }
    ours = model.parameters.unpack(run(session(vjp_graph(model)), rows)[GRAD_THETA].sum(0))
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name].reshape(-1), rtol=1e-3, atol=1e-4, err_msg=name)
