"""Gradients on a given side of every kink: what it changes, and what it must not hide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.export.backward.rules import RULES
from acclimate.export.backward.tape import Tape
from acclimate.export.backward.vjp import GRAD_THETA, vjp_graph
from acclimate.export.branches import rectified, seen, taken
from acclimate.export.bundle_graphs import Quantized
from acclimate.export.graph import Graph, Node, Value
from acclimate.export.passes.sites import Adaptable, with_sites
from acclimate.export.reference import RowBatch, reference
from acclimate.export.session import run, session
from acclimate.export.trace import traced
from acclimate.export.verify import Limits, probe_rows, relative_error, row_errors
from tests.export.nets import PREPROCESSING, SHAPE, odd_net, pictures, tiny_net
from tests.export.test_vjp import feeds


class Bent(nn.Module):
    """One rectifier of each kind behind each other, without norms, so that rows run by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 8, 3), nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.leaky_relu(functional.hardswish(self.norm(self.first(x))), 0.1)
        x = functional.max_pool2d(functional.relu6(2 * x), 3)
        logits: Tensor = self.head(functional.hardsigmoid(x).mean((2, 3)))
        return logits


def bent() -> nn.Module:
    torch.manual_seed(0)
    return Bent().eval()


def adaptable(model: nn.Module) -> Adaptable:
    return with_sites(traced(model, PREPROCESSING, SHAPE))


def observed(model: Adaptable, rows: RowBatch) -> dict[str, np.ndarray]:
    return run(session(vjp_graph(model), rectified(model.graph)), feeds(rows))


@pytest.mark.parametrize("make", [tiny_net, odd_net, bent])
def test_on_the_graph_s_sides_nothing_else_changes(make) -> None:
    model = adaptable(make())
    rows = probe_rows(model, pictures(8))
    got = observed(model, rows)
    branches = seen(model.graph, got)
    pinned = reference(make(), PREPROCESSING, model, rows, {}, branches)
    assert not branches.lost
    assert branches.units == sum(got[name].size for name in rectified(model.graph))
    plain = reference(make(), PREPROCESSING, model, rows, {})
    if not branches.flipped:
        np.testing.assert_allclose(pinned.grad_theta, plain.grad_theta, rtol=1e-4, atol=1e-6)
    assert relative_error(got[GRAD_THETA], pinned.grad_theta) < 1e-5


def test_a_unit_across_its_kink_changes_the_gradient_as_the_graph_would() -> None:
    """One unit is switched on by hand where it was barely off."""
    model = adaptable(tiny_net())
    rows = probe_rows(model, pictures(8))
    got = observed(model, rows)
    name = list(rectified(model.graph))[-1]
    flat = got[name].reshape(-1)
    nearest = int(np.argmin(np.abs(flat)))
    before = float(flat[nearest])
    flat[nearest] = np.float32(-1e-30 if before > 0 else 1e-30)
    branches = seen(model.graph, got)
    plain = reference(tiny_net(), PREPROCESSING, model, rows, {})
    other = reference(tiny_net(), PREPROCESSING, model, rows, {}, branches)
    assert (branches.flipped, branches.lost) == (1, False)
    assert relative_error(other.grad_theta, plain.grad_theta) > 1e-4
    np.testing.assert_allclose(other.logits, plain.logits, atol=10 * abs(before) + 1e-9)


def test_more_than_rounding_is_no_other_side() -> None:
    model = adaptable(tiny_net())
    rows = probe_rows(model, pictures(8))
    got = observed(model, rows)
    name = next(iter(rectified(model.graph)))
    got[name] = -got[name]
    branches = seen(model.graph, got)
    reference(tiny_net(), PREPROCESSING, model, rows, {}, branches)
    assert branches.lost


def test_another_order_of_rectifiers_is_no_other_side() -> None:
    branches = seen(_relu_graph(), {"x": np.ones((2, 3), np.float32)})
    with taken(branches):
        functional.hardswish(torch.ones(2, 3))
    assert branches.lost
    again = seen(_relu_graph(), {"x": np.ones((2, 3), np.float32)})
    with taken(again):
        functional.relu(torch.ones(2, 4))
    assert again.lost


def _relu_graph() -> Graph:
    value = Value(np.dtype(np.float32), (-1, 3))
    return Graph({"x": value}, {"y": value}, {}, [Node("Relu", ("x",), ("y",))], {"x": value, "y": value})


@pytest.mark.parametrize("op", ["Relu", "Clip", "Sigmoid"])
def test_a_wrong_rule_is_still_found(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong by a tenth, in one rule only."""
    quantized = replace(Quantized.of(adaptable(odd_net()), pictures(32)), weights={})
    right = vjp_graph(quantized.model)
    rule = RULES[op]

    def tenth_more(node: Node, grad: str, tape: Tape) -> Mapping[int, str]:
        return {i: tape.add("Mul", name, tape.number(1.1)) for i, name in rule(node, grad, tape).items()}

    monkeypatch.setitem(RULES, op, tenth_more)
    wrong = vjp_graph(quantized.model)
    errors = [row_errors(odd_net(), PREPROCESSING, quantized, vjp, pictures(8)).gradients for vjp in (right, wrong)]
    assert errors[0] < Limits().vjp < 10 * Limits().vjp < errors[1]
