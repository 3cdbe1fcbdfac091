"""The whole VJP graph against float64 autograd, row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.export.backward.vjp import (
    ALPHA,
    BATCH_STATS,
    COTANGENT,
    GRAD_THETA,
    MIX,
    STATS,
    THETA,
    dependent_on_theta,
    observe_graph,
    vjp_graph,
)
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Graph, Node
from acclimate.export.passes.sites import SITE, Adaptable, with_sites
from acclimate.export.reference import RowBatch, reference
from acclimate.export.session import run, session
from acclimate.export.verify import probe_rows, relative_error
from acclimate.export.weights import quantized_weights, rounded, stored_in_int8
from tests.export.nets import PREPROCESSING, pictures, tiny_net


@pytest.fixture(scope="module")
def running(tiny: Adaptable) -> object:
    return session(vjp_graph(tiny))


def feeds(rows: RowBatch) -> dict[str, np.ndarray]:
    return {
        "image": rows.inputs,
        THETA: rows.theta,
        STATS: rows.stats,
        MIX: rows.mix(),
        ALPHA: rows.alpha,
        COTANGENT: rows.cotangent,
    }


def random_rows(model: Adaptable, groups: list[int], alphas: list[float], seed: int) -> RowBatch:
    rows = probe_rows(model, pictures(8, seed=seed), seed)
    take = np.arange(len(groups)) % len(rows.group)
    group = np.array(groups)
    generator = np.random.default_rng(seed)
    return RowBatch(
        pictures(len(groups), seed=seed),
        rows.theta[take],
        rows.stats[take],
        group,
        np.array(alphas, np.float32)[group],
        generator.standard_normal((len(groups), 3)).astype(np.float32),
    )


def take(rows: RowBatch, keep: np.ndarray) -> RowBatch:
    return RowBatch(*(getattr(rows, name)[keep] for name in RowBatch.__dataclass_fields__))


@settings(max_examples=10)
@given(
    groups=st.lists(st.integers(0, 2), min_size=1, max_size=7),
    alphas=st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
def test_gradients_and_statistics_are_autograd_s(
    tiny: Adaptable, running: object, groups: list[int], alphas: list[float], seed: int
) -> None:
    """Any mixture of groups and alphas; among the gammas are negative ones and zeros."""
    rows = random_rows(tiny, groups, alphas, seed)
    expected = reference(tiny_net(), PREPROCESSING, tiny, rows, {})
    got = run(running, feeds(rows))
    assert relative_error(got["logits"], expected.logits) < 1e-4
    assert relative_error(got[BATCH_STATS], expected.batch_stats) < 1e-4
    for row, exact in zip(got[GRAD_THETA], expected.grad_theta, strict=True):
        np.testing.assert_allclose(row, exact, rtol=1e-3, atol=2e-4 * np.abs(exact).max())


def test_rows_of_other_groups_do_not_matter(tiny: Adaptable, running: object) -> None:
    rows = random_rows(tiny, [0, 1, 0, 2, 1], [1.0, 0.5, 0.0], 3)
    changed = replace(
        rows,
        inputs=np.where((rows.group == 1)[:, None, None, None], pictures(5, seed=9), rows.inputs),
        theta=np.where((rows.group == 1)[:, None], rows.theta * 2, rows.theta),
        cotangent=np.where((rows.group == 1)[:, None], -rows.cotangent, rows.cotangent),
    )
    before, after = run(running, feeds(rows)), run(running, feeds(changed))
    same = rows.group != 1
    for name in (GRAD_THETA, "logits", BATCH_STATS):
        np.testing.assert_allclose(before[name][same], after[name][same], rtol=1e-5, atol=1e-6, err_msg=name)
        assert np.abs(before[name][~same] - after[name][~same]).max() > 1e-2, name


def test_a_group_alone_gets_the_same_gradients(tiny: Adaptable, running: object) -> None:
    rows = random_rows(tiny, [0, 1, 0, 2, 1], [1.0, 0.5, 0.0], 4)
    together = run(running, feeds(rows))
    for group in range(3):
        keep = np.flatnonzero(rows.group == group)
        alone = run(running, feeds(take(rows, keep)))
        np.testing.assert_allclose(together[GRAD_THETA][keep], alone[GRAD_THETA], rtol=1e-4, atol=1e-5)


def test_constant_pictures_of_different_brightness_stay_finite(tiny: Adaptable, running: object) -> None:
    """No spread within a row and a large one between rows is where E[x^2] - E[x]^2 would go negative."""
    rows = random_rows(tiny, [0, 0, 0], [1.0], 5)
    flat = np.broadcast_to(np.array([0, 128, 255], np.uint8)[:, None, None, None], rows.inputs.shape)
    rows = replace(rows, inputs=np.ascontiguousarray(flat))
    expected = reference(tiny_net(), PREPROCESSING, tiny, rows, {})
    assert relative_error(run(running, feeds(rows))[GRAD_THETA], expected.grad_theta) < 1e-3


def test_only_what_theta_needs_is_computed(tiny: Adaptable) -> None:
    graph = vjp_graph(tiny)
    convolutions = [node for node in graph.nodes if node.op in ("Conv", "ConvTranspose")]
    below_first_site = 1
    total = sum(node.op == "Conv" for node in tiny.graph.nodes)
    shortcut = 1
    assert len(convolutions) == total + (total - below_first_site) + shortcut
    assert sum(node.op == "ConvTranspose" for node in convolutions) == 2, "one convolution and one slice have a stride"
    first = next(node for node in tiny.graph.nodes if node.op == "Conv")
    assert not any("stem.weight" in node.inputs for node in convolutions if node.output != first.output)
    assert {name for node in graph.nodes for name in node.outputs} >= set(graph.outputs)


def test_sites_above_leave_everything_below_alone(tiny_graph: Graph) -> None:
    last = with_sites(tiny_graph, ["block.*"])
    graph = vjp_graph(last)
    assert sum(node.op in ("Conv", "ConvTranspose") for node in graph.nodes) == 4, "the four of the forward pass"
    assert "stem.weight" not in dependent_on_theta(last.graph.nodes)


def test_weights_stored_in_eight_bits_compute_the_same(tiny: Adaptable) -> None:
    graph, weights = vjp_graph(tiny), quantized_weights(tiny.graph)
    stored = stored_in_int8(graph, weights)
    assert {name for name, array in stored.constants.items() if array.dtype == np.int8} == {
        f"{name}.int8" for name in weights
    }
    rows = feeds(probe_rows(tiny, pictures(8)))
    got, expected = run(session(stored), rows), run(session(rounded(graph, weights)), rows)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_observing_is_the_forward_half(tiny: Adaptable) -> None:
    vjp = vjp_graph(tiny)
    observe = observe_graph(vjp)
    assert set(observe.inputs) == {"image", THETA, STATS, MIX, ALPHA}
    assert len(observe.nodes) < 0.6 * len(vjp.nodes)
    rows = feeds(probe_rows(tiny, pictures(8)))
    expected = run(session(vjp), rows)
    got = run(session(observe), {name: rows[name] for name in observe.inputs})
    for name in ("logits", BATCH_STATS):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, atol=1e-6)


def test_an_operator_without_a_rule_is_named(tiny: Adaptable) -> None:
    graph = tiny.graph.copy(
        Node("Ceil", node.inputs, node.outputs) if node.op == "Relu" else node for node in tiny.graph.nodes
    )
    with pytest.raises(UnsupportedModel, match=r"node 'relu\w*': operator Ceil has no backward rule"):
        vjp_graph(replace(tiny, graph=graph))


def test_a_site_that_the_logits_ignore_is_named(tiny: Adaptable) -> None:
    site = next(node for node in tiny.graph.nodes if node.op == SITE and node.attributes["site"] == 3)
    graph = tiny.graph.copy(
        Node("Relu", (site.inputs[0],), node.outputs) if node is site else node for node in tiny.graph.nodes
    )
    with pytest.raises(UnsupportedModel, match=r"the logits do not depend on \['block.1.weight', 'block.1.bias'\]"):
        vjp_graph(replace(tiny, graph=graph))
