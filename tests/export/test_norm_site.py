"""The norm composite with any row-stochastic mix, which the runtime's block-diagonal ones are a case of."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from acclimate.export.backward.norm_site import RowInputs, SiteInputs, site_backward, site_forward
from acclimate.export.backward.tape import Tape
from acclimate.export.graph import BATCH, Graph, Value
from acclimate.export.session import run, session

CHANNELS, SIZE, EPSILON = 3, (4, 5), 1e-3
PER_CHANNEL = ("gamma", "beta", "mean", "var")


def composite() -> Graph:
    """`y`, and the gradients of x, gamma and beta for the cotangent g."""
    graph, single = Graph(), np.dtype(np.float32)
    shapes = {"x": (BATCH, CHANNELS, *SIZE), "g": (BATCH, CHANNELS, *SIZE), "mix": (BATCH, BATCH), "alpha": (BATCH, 1)}
    shapes |= dict.fromkeys(PER_CHANNEL, (BATCH, CHANNELS))
    graph.inputs = graph.values = {name: Value(single, shape) for name, shape in shapes.items()}
    graph.values = dict(graph.values)
    tape = Tape(graph, frozenset({"x", "y"}))
    rest = tape.add("Sub", tape.number(1.0), "alpha")
    rows = RowInputs("mix", tape.add("Transpose", "mix", perm=[1, 0]), "alpha", rest)
    saved = site_forward("x", SiteInputs(*PER_CHANNEL), rows, EPSILON, "y", tape)
    gamma, beta, x = site_backward("g", saved, rows, tape, through=True)
    assert x is not None
    for name, result, like in (("gx", x, "x"), ("g_gamma", gamma, "gamma"), ("g_beta", beta, "beta")):
        graph.add("Identity", (result,), name=name)
        graph.outputs[name] = graph.values[like]
    graph.outputs["y"] = graph.values["x"]
    return graph


RUNNING = session(composite())


@given(rows=st.integers(1, 5), seed=st.integers(0, 999), alpha=st.sampled_from([0.0, 0.4, 1.0]), far=st.booleans())
def test_against_the_definition(rows: int, seed: int, alpha: float, far: bool) -> None:
    """Mean and variance of all pixels, weighted by mix; `far` puts the rows ten deviations apart."""
    generator = np.random.default_rng(seed)
    mix = generator.random((rows, rows)) ** 3
    feeds = {
        "x": generator.standard_normal((rows, CHANNELS, *SIZE)),
        "g": generator.standard_normal((rows, CHANNELS, *SIZE)),
        "mix": mix / mix.sum(1, keepdims=True),
        "alpha": np.full((rows, 1), alpha),
        "gamma": generator.standard_normal((rows, CHANNELS)),
        "beta": generator.standard_normal((rows, CHANNELS)),
        "mean": generator.standard_normal((rows, CHANNELS)),
        "var": 0.1 + generator.random((rows, CHANNELS)),
    }
    feeds["x"] += 10 * far * np.arange(rows)[:, None, None, None]
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    given_ = {name: torch.from_numpy(array).double() for name, array in feeds.items()}
    wanted = {name: given_[name].requires_grad_() for name in ("x", "gamma", "beta")}
    y = definition(**{name: tensor for name, tensor in given_.items() if name != "g"})
    gradients = torch.autograd.grad(y, list(wanted.values()), given_["g"])
    got = run(RUNNING, feeds)
    for name, exact in zip(("y", "gx", "g_gamma", "g_beta"), (y.detach(), *gradients), strict=True):
        scale = float(exact.abs().max())
        np.testing.assert_allclose(got[name], exact.numpy(), rtol=1e-3, atol=1e-4 * scale, err_msg=name)


def definition(
    x: torch.Tensor, mix: torch.Tensor, alpha: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor,
    mean: torch.Tensor, var: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    mu = torch.einsum("ij,jchw->ic", mix, x) / (SIZE[0] * SIZE[1])
    apart = x[None] - mu[:, None, :, None, None]
    spread = torch.einsum("ij,ijchw->ic", mix, apart**2) / (SIZE[0] * SIZE[1])
    mu, spread = alpha * mu + (1 - alpha) * mean, alpha * spread + (1 - alpha) * var
    gain = gamma / torch.sqrt(spread + EPSILON)
    return (x - mu[:, :, None, None]) * gain[:, :, None, None] + beta[:, :, None, None]
