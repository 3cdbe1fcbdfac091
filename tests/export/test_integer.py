"""The int8 graphs: frozen and forward agree bit for bit, and follow the float model wherever a session goes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.adapters.errors import LayoutError
from acclimate.adapters.folding import BIAS_LIMIT, Folding, fold
from acclimate.export.activations import ActivationScale, planned_scales
from acclimate.export.backward.vjp import observe_graph, vjp_graph
from acclimate.export.graph import Graph
from acclimate.export.integer import fold_arrays, folded, forward_graph, frozen_graph
from acclimate.export.passes.sites import SITE, Adaptable, at_source, with_sites
from acclimate.export.ranges import Range, measured_ranges
from acclimate.export.session import first_output, session
from acclimate.export.trace import Preprocessing, traced
from acclimate.export.weights import quantized_weights, rounded
from tests.export.nets import SHAPE, pictures, tiny_net


@dataclass(frozen=True)
class Compiled:
    model: Adaptable
    folding: Folding
    frozen: Graph
    forward: Graph
    float_rows: Any


@pytest.fixture(scope="module")
def compiled(tiny: Adaptable) -> Compiled:
    weights = quantized_weights(tiny.graph)
    plan = planned_scales(tiny.graph, measured_ranges(at_source(tiny), pictures(200)), 1.5)
    folding = Folding.of(tiny.sites, tiny.parameters, tiny.statistics, fold_arrays(tiny, weights, plan))
    observe = observe_graph(rounded(vjp_graph(tiny), weights))
    return Compiled(
        tiny, folding, frozen_graph(tiny, weights, plan, folding), forward_graph(tiny, weights, plan), session(observe)
    )


def int8_logits(compiled: Compiled, inputs: np.ndarray, theta: np.ndarray, stats: np.ndarray) -> np.ndarray:
    scale, bias = fold(compiled.folding, theta, stats)
    return first_output(session(compiled.forward), inputs, scale=scale, bias=bias)


def float_logits(compiled: Compiled, inputs: np.ndarray, theta: np.ndarray, stats: np.ndarray) -> np.ndarray:
    rows = len(inputs)
    feeds = {
        "image": inputs,
        "theta": np.tile(theta, (rows, 1)),
        "stats": np.tile(stats, (rows, 1)),
        "mix": np.eye(rows, dtype=np.float32),
        "alpha": np.zeros(rows, np.float32),
    }
    return np.asarray(compiled.float_rows.run(["logits"], feeds)[0])


def test_forward_at_the_source_is_frozen_bit_for_bit(compiled: Compiled) -> None:
    model = compiled.model
    for rows in (1, 7, 64):
        inputs = pictures(rows, seed=rows)
        np.testing.assert_array_equal(
            int8_logits(compiled, inputs, model.theta, model.stats), first_output(session(compiled.frozen), inputs)
        )


def test_convolutions_run_on_integers(compiled: Compiled) -> None:
    for graph in (compiled.frozen, compiled.forward):
        ops = [node.op for node in graph.nodes]
        assert ops.count("QLinearConv") == 4
        assert ops.count("QLinearAdd") == 2
        assert not {"Conv", "BatchNormalization", "Gemm", "DequantizeLinear", SITE} & set(ops)
        assert ops.count("QuantizeLinear") == 1, "the preprocessed image; nothing else is in float before the logits"
        assert not any(
            array.dtype == np.float32 and array.ndim > 2 and array.size > 9 for array in graph.constants.values()
        )


@settings(max_examples=15)
@given(seed=st.integers(0, 999), spread=st.sampled_from([0.05, 0.2]))
def test_int8_follows_float_after_adaptation(compiled: Compiled, seed: int, spread: float) -> None:
    """Gammas that changed sign or went to zero among them."""
    model, generator = compiled.model, np.random.default_rng(seed)
    theta = (model.theta * (1 + spread * generator.standard_normal(model.theta.shape))).astype(np.float32)
    gammas = model.parameters.columns("norm.scale")
    chosen = generator.choice(gammas, 2, replace=False)
    theta[chosen[0]] *= -0.3
    theta[chosen[1]] = 0
    stats = (model.stats * (1 + spread * generator.random(model.stats.shape))).astype(np.float32)
    inputs = pictures(32, seed=seed)
    expected = float_logits(compiled, inputs, theta, stats)
    error = np.abs(int8_logits(compiled, inputs, theta, stats) - expected)
    assert np.sqrt((error**2).mean()) < 0.06 * np.abs(expected).max()


def test_pixels_feed_the_first_convolution_directly_where_one_scale_fits() -> None:
    model = with_sites(traced(tiny_net(), Preprocessing(mean=(0.2,), std=(0.25,)), SHAPE))
    weights = quantized_weights(model.graph)
    plan = planned_scales(model.graph, measured_ranges(at_source(model), pictures(16)), 1.0)
    assert plan.direct is not None
    scale = plan.scales[plan.direct]
    assert (scale.zero, scale.scale) == (51, pytest.approx(1 / 255 / 0.25))
    forward = forward_graph(model, weights, plan)
    first = next(node for node in forward.nodes if node.op == "QLinearConv")
    assert first.inputs[0] == "image"
    assert not {"Cast", "QuantizeLinear"} & {node.op for node in forward.nodes}


def test_a_norm_that_no_convolution_carries_runs_in_float_at_the_session_s_statistics(tiny: Adaptable) -> None:
    convolution = next(node for node in tiny.graph.nodes if node.op == "Conv" and node.inputs[1] == "block.0.weight")
    names = {convolution.output: convolution.inputs[0]}
    swapped = replace(
        tiny, graph=tiny.graph.copy(node.renamed(names) if node.op == SITE else node for node in tiny.graph.nodes)
    )
    weights, source = quantized_weights(tiny.graph), at_source(swapped)
    plan = planned_scales(swapped.graph, measured_ranges(source, pictures(64)), 1.0)
    arrays = fold_arrays(swapped, weights, plan)
    assert [site.name for site in folded(swapped)] == ["norm", "norm1", "norm2"]
    assert [len(array) for array in arrays.values()] == [16] * 3
    forward = forward_graph(swapped, weights, plan)
    assert list(forward.inputs) == ["image", "scale", "bias", "theta", "stats"]
    folding = Folding.of(folded(swapped), tiny.parameters, tiny.statistics, arrays)
    scale, bias = fold(folding, tiny.theta, tiny.stats)
    rows = {"scale": scale, "bias": bias, "theta": tiny.theta, "stats": tiny.stats}
    got = first_output(session(forward), pictures(40, seed=5), **rows)
    frozen = first_output(session(frozen_graph(swapped, weights, plan, folding)), pictures(40, seed=5))
    np.testing.assert_array_equal(got, frozen)
    expected = first_output(session(source), pictures(40, seed=5))
    assert np.abs(got - expected).max() < 0.1 * np.abs(expected).max()
    moved = first_output(session(forward), pictures(40, seed=5), **rows | {"theta": 2 * tiny.theta})
    assert np.abs(moved - got).max() > 0.1 * np.abs(expected).max()


def test_zero_is_exact_in_every_activation_scale() -> None:
    for low, high in ((0.0, 3.0), (-1.0, 2.0), (-5.0, 0.0), (0.5, 2.0), (0.0, 0.0)):
        scale = ActivationScale.of(Range(low, high))
        assert 0 <= scale.zero <= 255
        assert scale.scale > 0
        assert scale.scale * (255 - scale.zero) >= high - scale.scale
        assert -scale.scale * scale.zero <= min(low, 0.0) + scale.scale


def test_fold_is_the_batch_norm_formula(compiled: Compiled) -> None:
    model, folding = compiled.model, compiled.folding
    scale, bias = fold(folding, model.theta, model.stats)
    acc = np.random.default_rng(0).integers(-20000, 20000, len(scale))
    got = folding.input_scale.astype(np.float64) * scale * (acc + bias)
    x = folding.input_scale.astype(np.float64) * folding.weight_scale * acc + folding.offset
    theta, stats = model.theta.astype(np.float64), model.stats.astype(np.float64)
    expected = theta[folding.gamma] * (x - stats[folding.mean]) / np.sqrt(stats[folding.var] + folding.epsilon)
    expected += theta[folding.beta]
    # Half a unit of the bias's own rounding.
    np.testing.assert_array_less(np.abs(got - expected), 0.51 * folding.input_scale * np.abs(scale))


def test_fold_of_a_zero_gamma_answers_the_shift(compiled: Compiled) -> None:
    model, folding = compiled.model, compiled.folding
    theta = model.theta.copy()
    theta[folding.gamma] = 0
    scale, bias = fold(folding, theta, model.stats)
    assert (np.abs(bias) <= BIAS_LIMIT).all()
    assert (scale > 0).all()
    shift = folding.input_scale.astype(np.float64) * scale * bias
    np.testing.assert_allclose(shift, theta[folding.beta], rtol=1e-6, atol=1e-30)


def test_fold_keeps_leading_axes_and_the_sign(compiled: Compiled) -> None:
    model, folding = compiled.model, compiled.folding
    theta = np.stack([model.theta, -model.theta])
    scale, bias = fold(folding, theta, np.stack([model.stats] * 2))
    np.testing.assert_array_equal(scale[0], -scale[1])
    np.testing.assert_array_equal(bias[0], bias[1])
    one = fold(folding, model.theta, model.stats)
    np.testing.assert_array_equal(scale[0], one[0])
    np.testing.assert_array_equal(bias[0], one[1])


def test_folding_refuses_arrays_of_another_length(compiled: Compiled) -> None:
    model = compiled.model
    arrays = {"weight_scale": np.ones(3, np.float32), "input_scale": np.ones(24, np.float32)}
    with pytest.raises(LayoutError, match=r"'weight_scale' is \(3,\); expected shape \(24,\)"):
        Folding.of(model.sites, model.parameters, model.statistics, arrays)
    arrays["weight_scale"] = np.ones(24, np.float32)
    with pytest.raises(LayoutError, match="'offset' is missing"):
        Folding.of(model.sites, model.parameters, model.statistics, arrays)
