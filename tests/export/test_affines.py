"""Layer, group and root-mean-square norms as adaptable parameters, from torch to the written bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn
from torch.nn import functional

from acclimate.adapters.manifest import Manifest
from acclimate.adapters.requests import Forward, Gradient, Rows
from acclimate.export import BundleSpec, CalibrationData, compile_model
from acclimate.export.backward.vjp import ALPHA, BATCH_STATS, COTANGENT, GRAD_THETA, MIX, STATS, THETA, vjp_graph
from acclimate.export.errors import UnsupportedModel
from acclimate.export.passes.affines import PARAMETER
from acclimate.export.passes.sites import Adaptable, at_source, with_sites
from acclimate.export.reference import reference
from acclimate.export.session import first_output, run, session
from acclimate.export.trace import Preprocessed, traced
from acclimate.export.verify import Limits, forward_error, probe_rows, relative_error
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from tests.export.nets import CLASSES, PREPROCESSING, SHAPE, pictures


class Patches(nn.Module):
    """A transformer of one block with every kind of norm: group, layer, root mean square."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.group = nn.Conv2d(2, 8, 3, 3), nn.GroupNorm(2, 8)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8, bias=False)
        self.queries, self.projection = nn.Linear(8, 24), nn.Linear(8, 8)
        self.rms, self.head = nn.RMSNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.group(self.embed(x))).flatten(2).transpose(1, 2)
        q, k, v = self.queries(self.norm1(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
        x = x + self.projection(mixed.transpose(1, 2).flatten(2))
        x = x + functional.silu(self.norm2(x))
        logits: Tensor = self.head(self.rms(x)[:, 0])
        return logits


class Windows(nn.Module):
    """Norms inside windows that were folded into the batch, beside a batch norm, as in MobileViT and LeViT."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.batch = nn.Conv2d(2, 8, 3, 1, 1), nn.BatchNorm2d(8)
        self.norm, self.mix = nn.LayerNorm(8), nn.Linear(8, 8, bias=False)
        self.flat, self.last, self.head = nn.BatchNorm1d(8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.batch(self.embed(x)).flatten(2).transpose(1, 2)
        x = self.norm(x.reshape(-1, 27, 8)).reshape(-1, 81, 8)
        x = torch.tanh(self.flat(self.mix(x).flatten(0, 1))).reshape(-1, 81, 8)
        logits: Tensor = self.head(self.last(x.mean(1)))
        return logits


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    """A model whose affines and statistics are not the initial ones."""
    torch.manual_seed(0)
    model = kind()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.dim() == 1 and tensor.is_floating_point():
            tensor.data = tensor.data + (
                0.3 * torch.rand(tensor.shape) if "var" in name else 0.2 * torch.randn(tensor.shape)
            )
    return model.eval()


def adaptable(model: nn.Module) -> Adaptable:
    return with_sites(traced(model, PREPROCESSING, SHAPE))


def test_every_norm_is_lifted_by_its_module_s_name() -> None:
    model = made(Patches)
    found = adaptable(model)
    assert (found.sites, found.statistics.size, len(found.stats)) == ((), 0, 0)
    assert [affine.name for affine in found.affines] == ["group", "norm1", "norm2", "rms"]
    assert [entry.name for entry in found.parameters.slices] == [
        "group.weight",
        "group.bias",
        "norm1.weight",
        "norm1.bias",
        "norm2.weight",
        "rms.weight",
    ]
    unpacked = found.parameters.unpack(found.theta)
    for name, array in unpacked.items():
        np.testing.assert_array_equal(array, model.get_parameter(name).detach().numpy(), err_msg=name)
    assert sum(node.op == PARAMETER for node in found.graph.nodes) == 6


def test_patterns_choose_among_them() -> None:
    graph = traced(made(Patches), PREPROCESSING, SHAPE)
    assert [affine.name for affine in with_sites(graph, ["norm*"]).affines] == ["norm1", "norm2"]
    with pytest.raises(UnsupportedModel, match=r"\['group', 'norm1', 'norm2', 'rms'\]"):
        with_sites(graph, ["bn*"])


@pytest.mark.parametrize("kind", [Patches, Windows])
def test_rows_of_several_sessions_match_autograd(kind: Callable[[], nn.Module]) -> None:
    model = made(kind)
    found = adaptable(model)
    assert forward_error(model, PREPROCESSING, at_source(found), pictures(8)) < 1e-6
    rows = probe_rows(found, pictures(8))
    expected = reference(model, PREPROCESSING, found, rows, {})
    feeds = {THETA: rows.theta, STATS: rows.stats, MIX: rows.mix(), ALPHA: rows.alpha, COTANGENT: rows.cotangent}
    got = run(session(vjp_graph(found)), feeds | {"image": rows.inputs})
    assert relative_error(got["logits"], expected.logits) < 1e-5
    for ours, theirs in zip(got[GRAD_THETA], expected.grad_theta, strict=True):
        assert relative_error(ours, theirs) < 1e-4
    assert got[BATCH_STATS].shape == (6, found.statistics.size)
    assert relative_error(got[BATCH_STATS], expected.batch_stats) < 1e-5


def test_frozen_norms_pass_gradients_on() -> None:
    model = made(Patches)
    found = with_sites(traced(model, PREPROCESSING, SHAPE), ["group"])
    rows = probe_rows(found, pictures(8))
    expected = reference(model, PREPROCESSING, found, rows, {})
    feeds = {THETA: rows.theta, STATS: rows.stats, MIX: rows.mix(), ALPHA: rows.alpha, COTANGENT: rows.cotangent}
    got = run(session(vjp_graph(found)), feeds | {"image": rows.inputs})
    assert relative_error(got[GRAD_THETA], expected.grad_theta) < 1e-4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "patches"
    spec = BundleSpec(
        name="patches", classes=CLASSES, preprocessing=PREPROCESSING, limits=Limits(disagreement_points=10)
    )
    compile_model(made(Patches), CalibrationData(pictures(64)), spec, out)
    return out


def test_the_engine_serves_each_session_s_own_norms(bundle: Path) -> None:
    described = Manifest.from_json(json.loads((bundle / "manifest.json").read_text()))
    assert (described.sites, described.statistics.size) == ((), 0)
    engine = OnnxEngine(read_bundle(bundle), OnnxOptions())
    source, inputs = engine.source, pictures(9, seed=3)
    np.testing.assert_array_equal(
        engine.predict(inputs, engine.fold(source.theta, source.stats)), engine.frozen(inputs)
    )
    moved = source.theta * np.linspace(0.5, 1.5, len(source.theta), dtype=np.float32)
    folded = engine.fold(moved, source.stats)
    answer = engine.predict(inputs, folded)
    rows = Rows(
        inputs, np.tile(moved, (9, 1)), np.tile(source.stats, (9, 1)), np.zeros(9, np.intp), np.zeros(9, np.float32)
    )
    outputs = engine.forward(Forward(rows))
    assert np.abs(outputs.logits - engine.frozen(inputs)).max() > 0.1
    assert relative_error(answer, outputs.logits) < 0.1
    assert outputs.batch_stats.shape == (9, 0)
    assert engine.vjp(Gradient(rows, np.ones((9, 3), np.float32))).grad_theta.shape == (9, len(moved))
    moved[:] = 0
    np.testing.assert_array_equal(engine.predict(inputs, folded), answer)


def test_products_by_frozen_matrices_run_on_integers(bundle: Path) -> None:
    import onnx

    operators = [node.op_type for node in onnx.load(bundle / "forward.onnx").graph.node]
    assert operators.count("MatMulIntegerToFloat") + operators.count("QGemm") == 3
    assert "QLinearAdd" not in operators, "the residual stream stays in float"
    inputs = pictures(40, seed=7)
    with torch.no_grad():
        expected = Preprocessed(made(Patches), PREPROCESSING)(torch.from_numpy(inputs)).numpy()
    got = first_output(session((bundle / "frozen.onnx").read_bytes()), inputs)
    assert relative_error(got, expected) < 0.1
    assert load_file(bundle / "source.safetensors")["fold.weight_scale"].shape == (0,)


def test_a_sample_s_answer_does_not_depend_on_its_batch(bundle: Path) -> None:
    running = session((bundle / "frozen.onnx").read_bytes())
    inputs = pictures(12, seed=8)
    alone = np.concatenate([first_output(running, inputs[i : i + 1]) for i in range(len(inputs))])
    np.testing.assert_allclose(first_output(running, inputs), alone, rtol=1e-5, atol=1e-6)


class Words(nn.Module):
    """Token ids in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.head = nn.Embedding(20, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids != 0).unsqueeze(-1).float()
        x = self.norm(self.embedding(ids)) * mask
        logits: Tensor = self.head(x.sum(1) / mask.sum(1).clamp(min=1))
        return logits


def test_token_ids_become_a_text_bundle(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 20, (64, 7))
    spec = BundleSpec(name="words", classes=CLASSES, limits=Limits(disagreement_points=10))
    report = compile_model(made(Words), CalibrationData(ids), spec, tmp_path / "words")
    assert report.parity.vjp_rel_error < 1e-5
    described = read_bundle(tmp_path / "words").manifest
    assert described.task == "text-classification"
    assert [(entry.name, entry.datatype, entry.shape) for entry in described.inputs] == [
        ("input_ids", "INT64", (-1, 7))
    ]
