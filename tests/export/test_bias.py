"""Biases of linear layers and convolutions as slices of theta; what cannot be lifted is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acclimate.export.adaptation import Biases, Norms
from acclimate.export.backward.vjp import GRAD_THETA, vjp_graph
from acclimate.export.errors import UnsupportedModel
from acclimate.export.passes.sites import at_source
from acclimate.export.reference import reference
from acclimate.export.session import first_output, run, session
from acclimate.export.trace import Preprocessed, traced
from acclimate.export.verify import probe_rows, relative_error
from tests.export.lora_nets import adaptable, feeds, mixed_graph, mixed_net, tiny_graph
from tests.export.nets import PREPROCESSING, SHAPE, pictures


def test_every_bias_is_lifted_but_those_that_a_batch_norm_follows() -> None:
    model = adaptable(mixed_graph(), Biases())
    names = [f"{name}.bias" for name in ("wide", "grouped", "query", "value", "window", "head")]
    assert [(entry.name, entry.kind) for entry in model.parameters.slices] == [(name, "bias") for name in names]
    state = mixed_net().state_dict()
    for name, values in model.parameters.unpack(model.theta).items():
        np.testing.assert_array_equal(values, state[name].numpy(), err_msg=name)
    assert [entry.name for entry in adaptable(tiny_graph(), Biases()).parameters.slices] == ["head.bias"]
    chosen = adaptable(mixed_graph(norm=False), Biases(("stem", "*e*y*")))
    assert [site.name for site in chosen.biases] == ["stem", "query"]


def test_the_source_model_is_what_it_was() -> None:
    inputs = pictures(9)
    with torch.no_grad():
        expected = Preprocessed(mixed_net(), PREPROCESSING)(torch.from_numpy(inputs)).numpy()
    got = first_output(session(at_source(adaptable(mixed_graph(), Biases()))), inputs)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_gradients_are_autograd_s() -> None:
    model = adaptable(mixed_graph(), Norms(), Biases())
    rows = probe_rows(model, pictures(8))
    expected = reference(mixed_net(), PREPROCESSING, model, rows, {})
    got = run(session(vjp_graph(model)), feeds(rows))
    assert relative_error(got["logits"], expected.logits) < 1e-5
    for entry in model.parameters.slices:
        found, exact = got[GRAD_THETA][:, entry.span], expected.grad_theta[:, entry.span]
        for row in range(len(found)):
            assert relative_error(found[row], exact[row]) < 2e-4, (entry.name, row)


def test_nothing_below_the_first_bias_is_differentiated() -> None:
    graph = vjp_graph(adaptable(mixed_graph(), Biases(("window", "head"))))
    convolutions = [node.op for node in graph.nodes if node.op in ("Conv", "ConvTranspose")]
    assert convolutions == ["Conv"] * 4
    # The head's input is the one gradient that passes a matrix on its way to the window's bias.
    assert sum(node.op == "Gemm" for node in graph.nodes) == 2


class Fresh(nn.Module):
    """Biases that are zero yet, as after most initialisations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)
        for layer in (self.first, self.head):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.first(x)).mean((2, 3)))
        return logits


def test_what_cannot_be_lifted_is_refused_in_one_line() -> None:
    for target in ("stem", "narrow", "nothing"):
        with pytest.raises(
            UnsupportedModel, match=rf"target '{target}' matches no layer with a bias.*'wide'"
        ) as raised:
            adaptable(mixed_graph(), Biases(("head", target)))
        assert "\n" not in str(raised.value)
    torch.manual_seed(0)
    fresh = traced(Fresh(), PREPROCESSING, SHAPE)
    with pytest.raises(UnsupportedModel, match="every adapted parameter is zero at the source"):
        adaptable(fresh, Biases())
