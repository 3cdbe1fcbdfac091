"""Graphs in half precision: what they compute, what stays in float32, and gradients that would underflow."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from acclimate.export.backward.vjp import COTANGENT, GRAD_THETA, vjp_graph
from acclimate.export.errors import ExportError, VerificationError
from acclimate.export.graph import Graph, Node, Value
from acclimate.export.passes.sites import Adaptable, with_sites
from acclimate.export.precision import in_precision
from acclimate.export.session import run, session
from acclimate.export.statistics import rows_of_one
from acclimate.export.trace import traced
from acclimate.export.variants import checked_precisions, precision_errors
from acclimate.export.verify import relative_error
from acclimate.export.weights import quantized_weights
from tests.export.nets import PREPROCESSING, SHAPE, odd_net, pictures

SINGLE = np.dtype(np.float32)


@pytest.fixture(scope="module")
def odd() -> Adaptable:
    return with_sites(traced(odd_net(), PREPROCESSING, SHAPE))


def feeds(model: Adaptable, size: int = 6) -> dict[str, np.ndarray]:
    cotangent = np.random.default_rng(0).standard_normal((size, 3)).astype(np.float32)
    return rows_of_one(model, size, alpha=0.5) | {"image": pictures(size), COTANGENT: cotangent}


@pytest.mark.parametrize(("precision", "limit"), [("fp16", 5e-3), ("bf16", 0.1)])
def test_rounding_is_all_that_differs(odd: Adaptable, tiny: Adaptable, precision: str, limit: float) -> None:
    for model in (odd, tiny):
        vjp, given = vjp_graph(model), feeds(model)
        expected = run(session(vjp), given)
        got = run(session(in_precision(vjp, precision, emulated=precision == "bf16")), given)
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            assert got[name].dtype == np.float32
            assert relative_error(got[name], value) < limit, name
        assert relative_error(got[GRAD_THETA], expected[GRAD_THETA]) > 1e-5


def test_convolutions_and_matrices_are_half_and_reductions_are_not(tiny: Adaptable) -> None:
    graph = in_precision(vjp_graph(tiny), "fp16")
    halves = {name for node in graph.nodes for name in node.outputs if name.endswith(".half")}
    ops = Counter((node.op, node.output in halves) for node in graph.nodes)
    # Four of the forward pass, and input gradients; products with `mix` average statistics.
    assert ops["Conv", True] > 4
    assert ops["MatMul", False]
    assert not any(ops[op, False] for op in ("Conv", "ConvTranspose", "Gemm"))
    assert not any(half for op, half in ops if op.startswith("Reduce"))


def test_a_bfloat16_graph_has_no_bfloat16_convolutions(tiny: Adaptable) -> None:
    graph = in_precision(vjp_graph(tiny), "bf16")
    assert all(not node.output.endswith(".half") for node in graph.nodes if node.op.startswith("Conv"))


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_tiny_and_huge_cotangents_keep_their_gradients(tiny: Adaptable, factor: float) -> None:
    half, given = session(in_precision(vjp_graph(tiny), "fp16")), feeds(tiny)
    expected = run(half, given)[GRAD_THETA]
    got = run(half, given | {COTANGENT: given[COTANGENT] * np.float32(factor)})[GRAD_THETA]
    np.testing.assert_allclose(got / factor, expected, rtol=2e-2, atol=1e-3 * np.abs(expected).max())


def test_a_cotangent_of_zeros_has_a_gradient_of_zeros(tiny: Adaptable) -> None:
    given = feeds(tiny)
    got = run(session(in_precision(vjp_graph(tiny), "fp16")), given | {COTANGENT: 0 * given[COTANGENT]})
    assert not got[GRAD_THETA].any()


def test_squares_under_a_mean_do_not_overflow() -> None:
    graph = Graph({"x": Value(SINGLE, (-1, 4))}, {"y": Value(SINGLE, (-1, 1))})
    graph.values |= graph.inputs | graph.outputs
    wide = graph.add("MatMul", ("x", graph.constant(np.eye(4, dtype=np.float32), name="eye")))
    square = graph.add("Mul", (wide, wide))
    graph.add("ReduceMean", (square, graph.constant(np.array([1]))), name="y", keepdims=1)
    x = np.full((2, 4), 1000, np.float32)
    got = run(session(in_precision(graph, "fp16")), {"x": x})["y"]
    np.testing.assert_allclose(got, np.full((2, 1), 1e6), rtol=1e-3)


def test_a_value_is_found_among_those_it_was_selected_from(odd: Adaptable) -> None:
    """A clip's gradient compares what went in with what came out; two roundings of one number would differ."""
    graph = vjp_graph(odd)
    assert any(node.op == "Equal" for node in graph.nodes)
    assert run(session(in_precision(graph, "fp16")), feeds(odd))[GRAD_THETA].any()


def test_errors_are_measured_and_limited(tiny: Adaptable) -> None:
    weights = quantized_weights(tiny.graph)
    found = {kind: precision_errors(tiny, weights, kind, pictures(16)) for kind in ("fp16", "bf16")}
    assert 0 < found["fp16"].gradients < found["bf16"].gradients
    assert (found["fp16"].emulated, found["bf16"].emulated) == (False, True)
    broken = tiny.graph.copy()
    # Beyond the largest half: the answer of the first convolution becomes infinite.
    broken.constants["stem.weight"] = broken.constants["stem.weight"] * np.float32(1e6)
    model = Adaptable(broken, *(getattr(tiny, name) for name in _REST))
    with pytest.raises(VerificationError, match="fp16 logits against float32"):
        precision_errors(model, quantized_weights(broken), "fp16", pictures(16))


_REST = ("sites", "affines", "parameters", "statistics", "theta", "stats")


def test_unknown_precisions_are_refused() -> None:
    assert checked_precisions(["fp16", "bf16", "fp16"]) == ("fp16", "bf16")
    with pytest.raises(ExportError, match=r"precision: 'int3' is not known; choose from \['bf16', 'fp16'\]"):
        checked_precisions(["int3"])


def test_nodes_of_other_types_are_left_alone() -> None:
    graph = Graph({"x": Value(SINGLE, (-1, 4))}, {"y": Value(np.dtype(np.int64), (-1, 1))})
    graph.values |= graph.inputs | graph.outputs
    graph.nodes.append(Node("ArgMax", ("x",), ("y",), {"axis": 1, "keepdims": 1}))
    assert in_precision(graph, "fp16").nodes == graph.nodes
