"""Features and their cotangent in the graphs, and the figures of them that a bundle keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acclimate.adapters.features import FeatureStatistics
from acclimate.export.backward.vjp import GRAD_THETA, observe_graph, vjp_graph
from acclimate.export.features import COTANGENT_FEATURES, FEATURES, feature_arrays, last_linear
from acclimate.export.graph import Graph, Node, Value
from acclimate.export.passes.sites import Adaptable
from acclimate.export.session import run, session
from acclimate.export.statistics import features, histograms
from acclimate.export.trace import Preprocessed
from acclimate.export.verify import probe_rows
from tests.export.nets import PREPROCESSING, pictures, tiny_net
from tests.export.test_vjp import feeds

CLASSES, WIDTH = 3, 8


def torch_features(inputs: np.ndarray) -> np.ndarray:
    """What the head of the network sees, at its own statistics."""
    model, seen = tiny_net(), []
    model.get_submodule("head").register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        Preprocessed(model, PREPROCESSING).eval()(torch.from_numpy(inputs))
    return seen[0].numpy()


def test_the_layer_is_found_behind_its_bias(tiny: Adaptable) -> None:
    layer = last_linear(tiny.graph)
    assert layer is not None
    np.testing.assert_array_equal(layer.weight, tiny_net().get_parameter("head.weight").detach().numpy())


def graph_of(*nodes: Node, **constants: np.ndarray) -> Graph:
    single = np.dtype(np.float32)
    values = {name: Value(single, (-1, 4)) for node in nodes for name in ("x", *node.outputs)}
    values["logits"] = Value(single, (-1, 3))
    return Graph({"x": values["x"]}, {"logits": values["logits"]}, dict(constants), list(nodes), values)


def test_the_layer_is_found_beside_a_low_rank_update() -> None:
    """Both sides of the sum are products; the frozen one is meant."""
    graph = graph_of(
        Node("MatMul", ("x", "down"), ("small",)),
        Node("MatMul", ("small", "up"), ("update",)),
        Node("MatMul", ("x", "weight"), ("plain",)),
        Node("Add", ("update", "plain"), ("sum",)),
        Node("Add", ("sum", "bias"), ("logits",)),
        weight=np.arange(12, dtype=np.float32).reshape(4, 3),
        bias=np.zeros(3, np.float32),
    )
    layer = last_linear(graph)
    assert layer is not None
    assert layer.tensor == "x"
    np.testing.assert_array_equal(layer.weight, np.arange(12, dtype=np.float32).reshape(4, 3).T)


@pytest.mark.parametrize(
    "nodes",
    [
        [Node("Relu", ("x",), ("logits",))],
        [Node("MatMul", ("x", "weight"), ("z",)), Node("Relu", ("z",), ("logits",))],
        [Node("Relu", ("x",), ("features",)), Node("MatMul", ("x", "weight"), ("logits",))],
    ],
    ids=["no product", "not last", "name taken"],
)
def test_without_such_a_layer_there_are_no_features(nodes: list[Node]) -> None:
    assert last_linear(graph_of(*nodes, weight=np.ones((4, 3), np.float32))) is None


def test_observe_answers_with_what_the_layer_saw(tiny: Adaptable) -> None:
    vjp = vjp_graph(tiny)
    observe, inputs = observe_graph(vjp), pictures(6)
    assert observe.outputs[FEATURES].shape == (-1, WIDTH)
    assert COTANGENT_FEATURES not in (*observe.inputs, *observe.constants)
    rows = probe_rows(tiny, inputs)
    given = {name: array for name, array in feeds(rows).items() if name in observe.inputs}
    seen, whole = run(session(observe), given), run(session(vjp), feeds(rows))
    layer = last_linear(tiny.graph)
    assert layer is not None
    made = seen[FEATURES] @ layer.weight.T + tiny_net().get_parameter("head.bias").detach().numpy()
    np.testing.assert_allclose(made, seen["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole[FEATURES], seen[FEATURES], rtol=1e-5, atol=1e-6)


def test_a_cotangent_of_the_features_is_one_of_the_logits_through_the_layer(tiny: Adaptable) -> None:
    """The layer is linear: `W^T c` at its input is `c` at its output; half of each is as much again."""
    running, rows = session(vjp_graph(tiny)), probe_rows(tiny, pictures(6))
    layer = last_linear(tiny.graph)
    assert layer is not None
    given, through = feeds(rows), (rows.cotangent @ layer.weight).astype(np.float32)
    expected = run(running, given)[GRAD_THETA]
    zeros = np.zeros_like(rows.cotangent)
    alone = run(running, given | {"cotangent": zeros, COTANGENT_FEATURES: through})[GRAD_THETA]
    both = run(running, given | {"cotangent": rows.cotangent / 2, COTANGENT_FEATURES: through / 2})[GRAD_THETA]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(alone, expected, rtol=1e-3, atol=1e-5 * scale)
    np.testing.assert_allclose(both, expected, rtol=1e-3, atol=1e-5 * scale)
    nothing = run(running, given | {"cotangent": zeros})[GRAD_THETA]
    np.testing.assert_array_equal(nothing, 0)


def test_figures_are_those_of_torchs_features(tiny: Adaptable) -> None:
    inputs, answers = pictures(150), np.arange(150) % CLASSES
    figures = FeatureStatistics.of(features(tiny, vjp_graph(tiny), inputs, answers), WIDTH, CLASSES)
    assert figures is not None
    seen, head = torch_features(inputs), tiny_net().get_submodule("head")
    np.testing.assert_allclose(figures.mean, seen.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(figures.covariance(), np.cov(seen.T, bias=True), atol=1e-4)
    for number in range(CLASSES):
        np.testing.assert_allclose(figures.centres[number], seen[answers == number].mean(axis=0), atol=1e-4)
    weight, bias = (head.get_parameter(name).detach().numpy() for name in ("weight", "bias"))
    np.testing.assert_allclose(figures.weight, weight, atol=np.abs(weight).max() / 200)
    np.testing.assert_allclose(figures.bias, bias, atol=np.abs(seen).sum(axis=1).max() * np.abs(weight).max() / 254)


def test_what_does_not_fit_is_kept_as_a_diagonal() -> None:
    """More features than directions: the variances are exact all the same."""
    draws = np.random.default_rng(0)
    seen = (draws.normal(size=(400, 5)) @ draws.normal(size=(5, 100)) + 0.1 * draws.normal(size=(400, 100))).astype(
        np.float32
    )
    layer = last_linear(wide(draws))
    assert layer is not None
    arrays = feature_arrays(layer, seen, seen @ layer.weight.T, np.arange(400) % 3)
    assert arrays["features.factor"].shape == (100, 64)
    figures = FeatureStatistics.of(arrays, 100, 3)
    assert figures is not None
    np.testing.assert_allclose(np.diag(figures.covariance()), seen.var(axis=0), rtol=1e-3)
    exact = np.cov(seen.T, bias=True)
    assert np.linalg.norm(figures.covariance() - exact) < 0.01 * np.linalg.norm(exact)


def wide(draws: np.random.Generator) -> Graph:
    graph = graph_of(
        Node("MatMul", ("x", "weight"), ("logits",)), weight=draws.normal(size=(100, 3)).astype(np.float32)
    )
    graph.values["x"] = Value(np.dtype(np.float32), (-1, 100))
    return graph


def test_a_class_with_one_sample_leaves_one_centre_of_everything(tiny: Adaptable) -> None:
    answers = np.zeros(60, np.int64)
    answers[0] = 2
    arrays = features(tiny, vjp_graph(tiny), pictures(60), answers)
    figures = FeatureStatistics.of(arrays, WIDTH, CLASSES)
    assert figures is not None
    assert not figures.by_class
    np.testing.assert_allclose(figures.mean, torch_features(pictures(60)).mean(axis=0), atol=1e-4)


def test_histograms_are_shares_of_all_samples() -> None:
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.96, 0.04]])
    shares = histograms(probabilities)
    assert shares["histogram.entropy"][[0, -1]].tolist() == [0.25, 0.5]
    assert shares["histogram.confidence"][[10, -1]].tolist() == [0.5, 0.5]
    assert all(share.sum() == 1 for share in shares.values())
