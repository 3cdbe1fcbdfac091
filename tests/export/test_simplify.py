"""The canonical form that the later passes read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Graph, Node, Value, pruned
from acclimate.export.passes.simplify import simplified
from acclimate.export.session import first_output, session
from acclimate.export.trace import Preprocessed
from tests.export.nets import PREPROCESSING, pictures, tiny_net

FLOAT = np.dtype(np.float32)


def graph_of(*nodes: Node, shapes: dict[str, tuple[int, ...]], output: str) -> Graph:
    graph = Graph(nodes=list(nodes))
    graph.values = {name: Value(FLOAT, shape) for name, shape in shapes.items()}
    graph.inputs, graph.outputs = {"x": graph.values["x"]}, {output: graph.values[output]}
    return graph


def test_traced_graph_is_canonical(tiny_graph: Graph) -> None:
    ops = [node.op for node in tiny_graph.nodes]
    assert set(ops) <= {
        "Cast",
        "Mul",
        "Add",
        "Conv",
        "BatchNormalization",
        "Relu",
        "Slice",
        "Pad",
        "GlobalAveragePool",
        "Reshape",
        "Gemm",
    }
    assert ops.count("BatchNormalization") == 4
    assert ops.count("Slice") == 1, "the slice of the batch axis is a no-op and goes; the two real ones are one"
    assert "norm.running_mean" in tiny_graph.constants, "constants carry the names of the user's module"


def test_traced_graph_computes_what_torch_does(tiny_graph: Graph) -> None:
    for rows in (1, 3):
        inputs = pictures(rows)
        with torch.no_grad():
            expected = Preprocessed(tiny_net(), PREPROCESSING)(torch.from_numpy(inputs)).numpy()
        np.testing.assert_allclose(first_output(session(tiny_graph), inputs), expected, rtol=1e-4, atol=1e-5)


def test_simplifying_twice_changes_nothing(tiny_graph: Graph) -> None:
    assert simplified(tiny_graph).nodes == tiny_graph.nodes


def test_adding_zero_goes_and_adding_one_stays() -> None:
    shapes = {"x": (BATCH, 2), "a": (BATCH, 2), "y": (BATCH, 2), "z": (BATCH, 2)}
    graph = graph_of(
        Node("Add", ("x", "zero"), ("a",)),
        Node("Add", ("a", "one"), ("y",)),
        Node("Relu", ("y",), ("z",)),
        shapes=shapes,
        output="z",
    )
    graph.constants = {"zero": np.zeros(2, np.float32), "one": np.ones(2, np.float32)}
    assert [node.inputs for node in simplified(graph).nodes] == [("x", "one"), ("y",)]


def test_an_output_keeps_its_name_even_if_its_node_does_nothing() -> None:
    graph = graph_of(Node("Identity", ("x",), ("y",)), shapes={"x": (BATCH, 2), "y": (BATCH, 2)}, output="y")
    assert [node.output for node in simplified(graph).nodes] == ["y"]


def test_a_slice_of_the_batch_is_no_no_op() -> None:
    graph = graph_of(
        Node("Slice", ("x", "start", "end", "axis", "step"), ("y",)),
        Node("Relu", ("y",), ("z",)),
        shapes={"x": (BATCH, 2), "y": (BATCH, 2), "z": (BATCH, 2)},
        output="z",
    )
    graph.constants = {name: np.array([value]) for name, value in (("start", 0), ("end", 5), ("axis", 0), ("step", 1))}
    assert [node.op for node in simplified(graph).nodes] == ["Slice", "Relu"]
    graph.constants["end"] = np.array([2**63 - 1])
    assert [node.op for node in simplified(graph).nodes] == ["Relu"]


def test_a_second_free_axis_is_refused() -> None:
    graph = graph_of(Node("Relu", ("x",), ("y",)), shapes={"x": (BATCH, BATCH), "y": (BATCH, BATCH)}, output="y")
    with pytest.raises(UnsupportedModel, match="one axis must vary, the batch"):
        simplified(graph)


def test_pruning_removes_what_no_output_needs() -> None:
    graph = graph_of(
        Node("Relu", ("x",), ("y",)),
        Node("Add", ("x", "c"), ("dead",)),
        shapes={"x": (BATCH, 2), "y": (BATCH, 2)},
        output="y",
    )
    graph.constants["c"] = np.ones(2, np.float32)
    kept = pruned(graph)
    assert [node.op for node in kept.nodes] == ["Relu"]
    assert not kept.constants
