"""Low-rank updates in the gradient's graph: PEFT's definition, autograd's gradients, nothing that is not needed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import peft
import pytest
import torch
from torch import nn

from acclimate.export.adaptation import Adaptation, Biases, LowRank, Norms
from acclimate.export.backward.vjp import GRAD_THETA, observe_graph, vjp_graph
from acclimate.export.errors import ExportError, UnsupportedModel
from acclimate.export.passes.sites import Adaptable, at_source
from acclimate.export.reference import reference
from acclimate.export.session import first_output, run, session
from acclimate.export.trace import Preprocessed
from acclimate.export.verify import gradient_error, probe_rows, relative_error
from tests.export.lora_nets import adaptable, feeds, mixed_graph, mixed_net, tiny_graph
from tests.export.nets import PREPROCESSING, pictures

LAYERS = ["stem", "wide", "narrow", "query", "key", "value", "window", "head"]


def test_slices_have_peft_s_names_shapes_and_start() -> None:
    model = adaptable(mixed_graph(), LowRank(2, 6.0, ("wide", "query", "head")))
    assert [(e.name, e.kind, e.shape) for e in model.parameters.slices] == [
        ("wide.lora_A.weight", "lora.A", (2, 6, 3, 3)),
        ("wide.lora_B.weight", "lora.B", (8, 2, 1, 1)),
        ("query.lora_A.weight", "lora.A", (2, 8)),
        ("query.lora_B.weight", "lora.B", (8, 2)),
        ("head.lora_A.weight", "lora.A", (2, 8)),
        ("head.lora_B.weight", "lora.B", (3, 2)),
    ]
    assert [(u.lora.name, u.lora.rank, u.lora.alpha) for u in model.updates] == [
        ("wide", 2, 6.0), ("query", 2, 6.0), ("head", 2, 6.0),
    ]  # fmt: skip
    tensors = model.parameters.unpack(model.theta)
    for update in model.updates:
        assert not tensors[update.lora.b].any()
        assert 0.1 < np.abs(tensors[update.lora.a]).max() <= 1 / np.sqrt(tensors[update.lora.a][0].size)
    again = adaptable(mixed_graph(), Norms(), LowRank(2))
    np.testing.assert_array_equal(
        again.parameters.unpack(again.theta)["wide.lora_A.weight"], tensors["wide.lora_A.weight"]
    )


def test_the_source_model_is_what_it_was() -> None:
    model = adaptable(mixed_graph(), LowRank(2), Norms())
    inputs = pictures(9)
    with torch.no_grad():
        expected = Preprocessed(mixed_net(), PREPROCESSING)(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(first_output(session(at_source(model)), inputs), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("norm", "adapt"),
    [
        (True, (LowRank(2, 3.0),)),
        (True, (Norms(), LowRank(3))),
        (True, (Norms(), LowRank(1, targets=("stem", "wide")), LowRank(2, 5.0, ("[qkv]*",)), Biases())),
        (False, (LowRank(2, 3.0),)),
        (False, (LowRank(2, targets=("window",)), Biases(("stem", "window", "head")))),
    ],
)
def test_gradients_are_autograd_s(norm: bool, adapt: tuple[Adaptation, ...]) -> None:
    """Three sessions, B far from zero; with a norm that is adapted, folded into its convolution, or not there."""
    torch_model = mixed_net(norm=norm)
    model = adaptable(mixed_graph(norm=norm), *adapt)
    rows = probe_rows(model, pictures(8))
    assert rows.theta[:, model.parameters.columns("lora.B")].std() > 0.1
    expected = reference(torch_model, PREPROCESSING, model, rows, {})
    got = run(session(vjp_graph(model)), feeds(rows))
    assert relative_error(got["logits"], expected.logits) < 1e-5
    for entry in model.parameters.slices:
        found, exact = got[GRAD_THETA][:, entry.span], expected.grad_theta[:, entry.span]
        assert np.abs(exact).max() > 0, entry.name
        for row in range(len(found)):
            assert relative_error(found[row], exact[row]) < 2e-4, (entry.name, row)


def peft_answers(torch_model: nn.Module, model: Adaptable, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """What the real library computes for one row of theta."""
    rank, alpha = model.updates[0].lora.rank, model.updates[0].lora.alpha
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=[update.lora.name for update in model.updates])
    wrapped = peft.get_peft_model(torch_model, config).eval()
    state = wrapped.state_dict()
    for name, tensor in model.parameters.unpack(theta).items():
        # PEFT keeps adapters by name: `lora_A.default.weight`.
        place = f"base_model.model.{name.removesuffix('.weight')}.default.weight"
        assert state[place].shape == tensor.shape, name
        state[place].copy_(torch.from_numpy(tensor.copy()))
    with torch.no_grad():
        return Preprocessed(wrapped, PREPROCESSING)(torch.from_numpy(inputs)).numpy()


def test_the_update_is_what_peft_computes() -> None:
    # PEFT leaves a convolution's dilation out of its update, so `wide` is not compared.
    layers = tuple(name for name in LAYERS if name != "wide")
    model = adaptable(mixed_graph(norm=False), LowRank(2, 5.0, layers))
    rows = probe_rows(model, pictures(6))
    theta = np.ascontiguousarray(np.broadcast_to(rows.theta[0], rows.theta.shape))
    observe = session(observe_graph(vjp_graph(model)))
    given = feeds(rows) | {"theta": theta}
    got = run(observe, {entry.name: given[entry.name] for entry in observe.get_inputs()})["logits"]
    expected = peft_answers(mixed_net(norm=False), model, theta[0], rows.inputs)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    plain = first_output(session(at_source(model)), rows.inputs)
    assert np.abs(expected - plain).max() > 0.1 * np.abs(plain).max(), (
        "the update changes nothing, so nothing was shown"
    )


def test_at_the_source_b_has_a_gradient_and_a_has_none() -> None:
    model = adaptable(tiny_graph(), LowRank(2))
    rows = probe_rows(model, pictures(6))
    given = feeds(rows) | {"theta": np.tile(model.theta, (6, 1))}
    gradient = run(session(vjp_graph(model)), given)[GRAD_THETA]
    assert not gradient[:, model.parameters.columns("lora.A")].any()
    for entry in model.parameters.slices:
        assert entry.kind == "lora.A" or np.abs(gradient[:, entry.span]).max() > 0, entry.name


def counted(*adapt: Adaptation) -> Counter[str]:
    return Counter(node.op for node in vjp_graph(adaptable(tiny_graph(), *adapt)).nodes)


def test_only_what_theta_needs_is_computed() -> None:
    """`tiny_net` has four convolutions, one Gemm; a frozen layer has no gradient of its weight anywhere."""
    head = counted(LowRank(2, targets=("head",)))
    # Two products forward, and backward one for B, one back to A's answer, and one for A; none for the input.
    assert (head["Conv"], head["ConvTranspose"], head["Gemm"], head["MatMul"]) == (4, 0, 1, 5)
    last = counted(LowRank(2, targets=("block.0",)))
    # One by one: shifts forward and back; the way from the logits down to the layer has no convolution in it.
    assert (last["Conv"], last["ConvTranspose"], last["Gemm"], last["MatMul"]) == (4 + 2, 0, 2, 5)
    first = counted(LowRank(2, targets=("stem",)))
    # Three convolutions above the stem, the strided one transposed, and the strided slice of the shortcut.
    assert (first["Conv"], first["ConvTranspose"], first["MatMul"]) == (4 + 2 + 2, 2, 5)
    both = counted(LowRank(2, targets=("stem", "block.0")))
    # The upper layer's update passes a gradient on to the lower one: one product more.
    assert both["MatMul"] == 5 + 6


def test_what_cannot_be_updated_is_refused_in_one_line() -> None:
    cases: dict[str, tuple[LowRank, ...]] = {
        r"target 'nothing' matches no linear layer or convolution; there are \['stem'": (
            LowRank(2, targets=("nothing",)),
        ),
        r"target 'grouped' matches grouped convolutions only \(\['grouped'\]\)": (
            LowRank(2, targets=("*e*", "grouped")),
        ),
        r"r is 4, but layer 'head' maps 8 numbers to 3; use r <= 3": (LowRank(4, targets=("head",)),),
        r"layer 'query' is matched by two updates": (LowRank(2, targets=("query",)), LowRank(3, targets=("q*",))),
    }
    for message, adapt in cases.items():
        with pytest.raises(UnsupportedModel, match=message) as raised:
            adaptable(mixed_graph(), *adapt)
        assert "\n" not in str(raised.value)
    with pytest.raises(ExportError, match="r is 0; it must be at least 1"):
        LowRank(0)
    with pytest.raises(ExportError, match="alpha is inf; it must be positive"):
        LowRank(1, float("inf"))


def test_grouped_convolutions_are_left_out_of_a_wide_pattern() -> None:
    assert [update.lora.name for update in adaptable(mixed_graph(), LowRank(2)).updates] == LAYERS


def test_an_exact_bias_does_not_hide_a_wrong_update() -> None:
    model = adaptable(mixed_graph(), LowRank(2), Biases(("head",)))
    exact = np.random.default_rng(0).standard_normal((4, model.parameters.size))
    exact[:, model.parameters.columns("bias")] *= 1e4
    assert gradient_error(exact * (1 + 1e-6), exact, model.parameters) < 2e-6
    wrong = exact.copy()
    wrong[2, model.parameters.columns("lora.A")] *= 1.01
    assert relative_error(wrong, exact) < 1e-3 < gradient_error(wrong, exact, model.parameters)
    wrong[0, 0] = np.nan
    assert gradient_error(wrong, exact, model.parameters) == float("inf")
