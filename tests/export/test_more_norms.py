"""Instance norms, zeros before pooling, tokens at computed positions; and that nothing is differentiated in vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.export.backward.vjp import GRAD_THETA, observe_graph, vjp_graph
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Graph
from acclimate.export.passes.sites import Adaptable, at_source, with_sites
from acclimate.export.reference import reference
from acclimate.export.session import first_output, run, session
from acclimate.export.trace import Preprocessed, traced
from acclimate.export.verify import forward_error, probe_rows, relative_error
from tests.export.nets import PREPROCESSING, SHAPE, pictures
from tests.export.test_affines import Patches, made
from tests.export.test_vjp import feeds


class Styled(nn.Module):
    """Instance norms with affines over pictures and over sequences, and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6, affine=True)
        self.plain, self.second = nn.InstanceNorm2d(6), nn.Conv2d(6, 4, 1)
        self.flat, self.head = nn.InstanceNorm1d(4, affine=True), nn.Linear(4 * 49, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.first(x)))
        x = self.second(functional.silu(self.plain(x)))
        logits: Tensor = self.head(torch.sigmoid(self.flat(x.flatten(2))).flatten(1))
        return logits


class Padded(nn.Module):
    """Zeros around negative numbers, and the maximum over both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(self.norm(self.first(x)) - 3, (1, 1, 1, 1))
        logits: Tensor = self.head(functional.max_pool2d(x, 3, 2).mean((2, 3)))
        return logits


class Brightest(nn.Module):
    """The answer at the pixel that is brightest in the input: its position is computed, but not from theta."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        place = x.mean(1).flatten(1).argmax(1)
        tokens = functional.silu(self.norm(self.first(x))).flatten(2).transpose(1, 2)
        logits: Tensor = self.head(tokens[torch.arange(x.shape[0]), place])
        return logits


class Shifted(nn.Module):
    """Windows of a picture that was rolled by half a window, as in Swin, with a bias gathered from a table."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.out = nn.Conv2d(2, 8, 2, 1), nn.LayerNorm(8), nn.LayerNorm(8)
        self.table, self.head = nn.Parameter(torch.randn(31)), nn.Linear(8, 3)
        self.register_buffer("places", (torch.arange(16)[:, None] - torch.arange(16)[None, :] + 15).flatten())

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x).permute(0, 2, 3, 1)).roll((-2, -2), (1, 2))
        windows = x.unflatten(1, (2, 4)).unflatten(3, (2, 4)).transpose(2, 3).reshape(-1, 16, 8)
        bias = self.table[self.get_buffer("places")].view(16, 16)
        mixed = torch.softmax(windows @ windows.transpose(1, 2) / 3 + bias, -1) @ windows
        x = self.out(mixed.reshape(-1, 64, 8)).transpose(1, 2)
        logits: Tensor = self.head(functional.adaptive_avg_pool1d(x, 1).flatten(1))
        return logits


def adapted(kind: Callable[[], nn.Module], *patterns: str) -> tuple[nn.Module, Adaptable]:
    model = made(kind)
    return model, with_sites(traced(model, PREPROCESSING, SHAPE), patterns or ("*",))


@pytest.mark.parametrize(
    ("kind", "norms"),
    [
        (Styled, {"norm": 6, "flat": 4}),
        (Padded, {"norm": 4}),
        (Brightest, {"norm": 4}),
        (Shifted, {"norm": 8, "out": 8}),
    ],
)
def test_gradients_are_autograd_s(kind: Callable[[], nn.Module], norms: dict[str, int]) -> None:
    model, adaptable = adapted(kind)
    assert {affine.name: affine.channels for affine in adaptable.affines} == norms
    assert forward_error(model, PREPROCESSING, at_source(adaptable), pictures(7)) < 1e-6
    rows = probe_rows(adaptable, pictures(8))
    got = run(session(vjp_graph(adaptable)), feeds(rows))
    expected = reference(model, PREPROCESSING, adaptable, rows, {})
    assert relative_error(got["logits"], expected.logits) < 1e-5
    for row, exact in zip(got[GRAD_THETA], expected.grad_theta, strict=True):
        assert np.linalg.norm(exact) > 1e-3
        assert relative_error(row, exact) < 1e-5


def test_zeros_before_pooling_stay_zeros() -> None:
    """ONNX Runtime takes them for pool padding, which is minus infinity, unless they are written differently."""
    model, adaptable = adapted(Padded)
    with torch.no_grad():
        expected = Preprocessed(model, PREPROCESSING)(torch.from_numpy(pictures(5))).numpy()
    np.testing.assert_allclose(first_output(session(at_source(adaptable)), pictures(5)), expected, atol=1e-6)


class Fixed(nn.Module):
    """Python's `len` makes a number of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.GroupNorm(1, 2), nn.Linear(162, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x).reshape(len(x), -1))
        return logits + torch.arange(len(x), device=x.device)[:, None]


def test_a_model_that_fixes_the_batch_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="fixes the batch") as raised:
        traced(made(Fixed), PREPROCESSING, SHAPE)
    assert "\n" not in str(raised.value)


def operators(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes)


def test_a_transformer_differentiates_only_what_theta_needs() -> None:
    """Seven products back: one per frozen layer, for its input, and two per product of activations; no convolution."""
    _, adaptable = adapted(Patches)
    vjp = vjp_graph(adaptable)
    there, whole = operators(observe_graph(vjp)), operators(vjp)
    assert (there["MatMul"], there["Gemm"], there["Conv"]) == (4, 1, 1)
    assert (whole["MatMul"] - 4, whole["Gemm"] - 1) == (6, 1)
    assert (whole["Conv"], whole["ConvTranspose"], whole["Softmax"], whole["Gelu"]) == (1, 0, 1, there["Gelu"])


def test_below_the_first_site_there_is_no_gradient() -> None:
    _, adaptable = adapted(Patches, "rms")
    vjp = vjp_graph(adaptable)
    back = operators(vjp) - operators(observe_graph(vjp))
    assert back["Gemm"] == 1
    assert not back.keys() & {"MatMul", "Conv", "ConvTranspose", "Softmax", "Exp", "Erf"}
    assert len(vjp.nodes) - len(observe_graph(vjp).nodes) <= 15


def test_a_branch_without_sites_is_not_differentiated() -> None:
    """Of the two branches that meet at `norm2`, the one from the frozen attention gets no gradient."""
    _, all_sites = adapted(Patches)
    _, late = adapted(Patches, "norm2", "rms")
    products = [operators(vjp_graph(model))["MatMul"] for model in (all_sites, late)]
    assert products == [10, 4]
