"""Low-rank updates and biases in the int8 graphs: frozen has none, forward follows the float model with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from acclimate.adapters.folding import Folding, fold
from acclimate.adapters.layout import Float, Kind
from acclimate.export.adaptation import Adaptation, Biases, LowRank, Norms
from acclimate.export.bundle_graphs import BundleGraphs, Quantized
from acclimate.export.graph import Graph
from acclimate.export.passes.sites import Adaptable
from acclimate.export.session import first_output, session
from tests.export.lora_nets import adaptable, mixed_graph, tiny_graph
from tests.export.nets import pictures

INPUTS = pictures(48, seed=11)


@dataclass(frozen=True)
class Compiled:
    model: Adaptable
    folding: Folding
    frozen: Graph
    forward: Graph
    float_rows: Any

    def served(self, theta: Float, stats: Float) -> Float:
        scale, bias = fold(self.folding, theta, stats)
        own = {"scale": scale, "bias": bias, "theta": theta, "stats": stats}
        running = session(self.forward)
        return first_output(running, INPUTS, **{e.name: own[e.name] for e in running.get_inputs()[1:]})

    def exact(self, theta: Float, stats: Float) -> Float:
        rows = len(INPUTS)
        given = {
            "image": INPUTS,
            "theta": np.tile(theta, (rows, 1)),
            "stats": np.tile(stats, (rows, 1)),
            "mix": np.eye(rows, dtype=np.float32),
            "alpha": np.zeros(rows, np.float32),
        }
        return np.asarray(self.float_rows.run(["logits"], given)[0])


@cache
def compiled(tiny: bool, *adapt: Adaptation, headroom: float = 1.5) -> Compiled:
    model = adaptable(tiny_graph() if tiny else mixed_graph(), *adapt)
    graphs = BundleGraphs.of(Quantized.of(model, pictures(200)), headroom)
    return Compiled(model, graphs.folding, graphs.frozen, graphs.forward, session(graphs.observe))


CASES: tuple[tuple[Adaptation, ...], ...] = (
    (LowRank(2, 4.0),),
    (Norms(), LowRank(2)),
    (Biases(),),
    (Norms(), Biases(), LowRank(2)),
)


def elsewhere(model: Adaptable, seed: int) -> tuple[Float, Float]:
    """Parameters and statistics far from the source; one gamma negative, one zero, every B far from zero."""
    generator = np.random.default_rng(seed)
    theta = model.theta * (1 + 0.2 * generator.standard_normal(len(model.theta)))
    gammas, updates = model.parameters.columns("norm.scale"), model.parameters.columns("lora.B")
    biases = model.parameters.columns("bias")
    theta[gammas[1:2]] *= -1
    theta[gammas[3:4]] = 0
    theta[updates] = 0.15 * generator.standard_normal(len(updates))
    theta[biases] += 0.1 * generator.standard_normal(len(biases))
    stats = model.stats * (1 + 0.1 * generator.random(len(model.stats)))
    return theta.astype(np.float32), stats.astype(np.float32)


@pytest.mark.parametrize("adapt", CASES)
@pytest.mark.parametrize("tiny", [True, False])
def test_int8_follows_float_wherever_a_session_goes(tiny: bool, adapt: tuple[Adaptation, ...]) -> None:
    found = compiled(tiny, *adapt)
    source = found.exact(found.model.theta, found.model.stats)
    for seed in range(3):
        theta, stats = elsewhere(found.model, seed)
        expected, got = found.exact(theta, stats), found.served(theta, stats)
        assert np.abs(expected - source).max() > 0.03 * np.abs(source).max()
        assert np.sqrt(((got - expected) ** 2).mean()) < 0.05 * np.abs(expected).max()


def error_of_effect(found: Compiled, theta: Float, kind: Kind) -> float:
    """What the int8 graph gets wrong of the change that one kind of parameters makes, root mean square."""
    columns, still = found.model.parameters.columns(kind), theta.copy()
    still[columns] = found.model.theta[columns]
    stats = found.model.stats
    effect = found.exact(theta, stats) - found.exact(still, stats)
    got = found.served(theta, stats) - found.served(still, stats)
    return float(np.sqrt(((got - effect) ** 2).mean() / (effect**2).mean()))


def test_an_update_is_scaled_by_the_gain_of_the_norm_that_its_convolution_carries() -> None:
    found = compiled(True, Norms(), LowRank(2), headroom=4.0)
    generator = np.random.default_rng(5)
    updates, gammas = (found.model.parameters.columns(kind) for kind in ("lora.B", "norm.scale"))
    theta = found.model.theta.copy()
    theta[gammas] *= generator.choice([-3, -2, 2, 3], len(gammas))
    theta[updates] = 0.15 * generator.standard_normal(len(updates))
    assert error_of_effect(found, theta, "lora.B") < 0.15


def test_a_convolution_s_bias_counts_in_units_of_its_accumulator() -> None:
    found = compiled(False, Biases(("wide", "grouped")), headroom=2.0)
    theta = found.model.theta + np.float32(0.3) * np.sign(np.random.default_rng(6).standard_normal(16)).astype(
        np.float32
    )
    assert error_of_effect(found, theta, "bias") < 0.15


@pytest.mark.parametrize("tiny", [True, False])
def test_frozen_is_the_plain_model_s(tiny: bool) -> None:
    """The same bits and operators as of a model that adapts its norms alone."""
    plain, updated = compiled(tiny, Norms()), compiled(tiny, Norms(), LowRank(2))
    np.testing.assert_array_equal(
        first_output(session(plain.frozen), INPUTS), first_output(session(updated.frozen), INPUTS)
    )
    assert Counter(n.op for n in plain.frozen.nodes) == Counter(n.op for n in updated.frozen.nodes)
    assert not any("lora" in name for name in updated.frozen.constants)


def test_at_the_source_forward_is_frozen_up_to_the_rounding_of_a_relu() -> None:
    found = compiled(True, Norms(), LowRank(2))
    frozen = first_output(session(found.frozen), INPUTS)
    got = found.served(found.model.theta, found.model.stats)
    exact = found.exact(found.model.theta, found.model.stats)
    assert np.abs(got - frozen).max() <= 1.5 * np.abs(frozen - exact).max()
    linear = compiled(False, Norms(), LowRank(2, targets=("query", "key", "value", "window", "head", "narrow")))
    np.testing.assert_array_equal(
        linear.served(linear.model.theta, linear.model.stats), first_output(session(linear.frozen), INPUTS)
    )


def test_biases_ride_on_the_integer_convolutions() -> None:
    found = compiled(False, Norms(), Biases())
    got = found.served(found.model.theta, found.model.stats)
    np.testing.assert_array_equal(got, first_output(session(found.frozen), INPUTS))
    ops = Counter(node.op for node in found.forward.nodes)
    assert (ops["QLinearConv"], ops["Conv"]) == (4, 0)
    # Only `wide` and `grouped`: a norm follows the stem, and `narrow` has no bias.
    assert ops["Round"] == 2


def test_updates_add_two_small_convolutions_and_norms_stay_folded() -> None:
    ops = Counter(node.op for node in compiled(True, Norms(), LowRank(2)).forward.nodes)
    # `depthwise` is grouped and has no update; `head` has one in two products.
    assert (ops["QLinearConv"], ops["Conv"], ops["MatMul"], ops["BatchNormalization"]) == (4, 2 * 3, 2, 0)
