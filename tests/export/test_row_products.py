"""Integer products with a scale per row: near the float ones, and no row knows of another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from acclimate.export.bundle_graphs import Quantized
from acclimate.export.graph import Array
from acclimate.export.passes.sites import Adaptable, with_sites
from acclimate.export.session import first_output, session
from acclimate.export.trace import Preprocessing, traced
from acclimate.export.verify import relative_error
from tests.export.nets import pictures
from tests.export.words import LENGTH, text_net, tokens


def adaptable(outlier: float) -> Adaptable:
    return with_sites(traced(text_net(outlier), Preprocessing(), (LENGTH,), np.dtype(np.int64)))


@pytest.fixture(scope="module")
def outlying() -> Quantized:
    return Quantized.of(adaptable(30.0), tokens(64))


def answers(quantized: Quantized, inputs: Array) -> Array:
    return first_output(session(quantized.frozen(1.5)), inputs)


def test_rows_are_chosen_where_calibrated_scales_do_not_fit(outlying: Quantized) -> None:
    inputs = tokens(200, seed=1)
    expected = first_output(session(outlying.source), inputs)
    static = relative_error(answers(replace(outlying, rows=False), inputs), expected)
    rows = relative_error(answers(outlying, inputs), expected)
    assert outlying.rows
    assert rows < 0.02
    assert static > 2 * rows


def test_convolutional_networks_keep_calibrated_scales(tiny: Adaptable) -> None:
    assert not Quantized.of(tiny, pictures(32)).rows


def test_the_samples_of_a_batch_do_not_change_each_other(outlying: Quantized) -> None:
    inputs = tokens(40, seed=2)
    running = session(outlying.frozen(1.5))
    together = first_output(running, inputs)
    alone = np.concatenate([first_output(running, inputs[i : i + 1]) for i in range(len(inputs))])
    # Integer sums are exact; what float kernels do to other batch sizes is in the last bits.
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_the_forward_graph_has_rows_too_and_its_bits_at_the_source(outlying: Quantized) -> None:
    from acclimate.export.bundle_graphs import BundleGraphs

    graphs, inputs = BundleGraphs.of(outlying, 1.5), tokens(16, seed=3)
    forward = first_output(session(graphs.forward), inputs, theta=outlying.model.theta)
    np.testing.assert_array_equal(forward, first_output(session(graphs.frozen), inputs))


def test_a_row_of_zeros_is_answered_with_zeros() -> None:
    from acclimate.export.activations import ActivationPlan
    from acclimate.export.emission import Emission
    from acclimate.export.graph import Graph, Value
    from acclimate.export.row_products import row_product
    from acclimate.export.weights import QuantizedWeight

    values = np.random.default_rng(0).integers(-127, 128, (8, 5)).astype(np.int8)
    single = np.dtype(np.float32)
    for axis, held in ((1, values), (0, np.ascontiguousarray(values.T))):
        graph = Graph({"x": Value(single, (-1, 8))}, {"y": Value(single, (-1, 5))})
        weight = QuantizedWeight(held, np.full(5, 0.01, np.float32), axis)
        to = Emission(None, graph, ActivationPlan({}, None, rows=True), {"w": weight}, str, {}, set())  # type: ignore[arg-type]
        row_product("x", "w", "y", to)
        x = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
        x[1] = 0
        got = session(graph).run(None, {"x": x})[0]
        np.testing.assert_array_equal(got[1], np.zeros(5, np.float32))
        expected = x @ (values * np.float32(0.01))
        assert relative_error(got, expected) < 0.01
