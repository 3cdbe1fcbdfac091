"""Models that exist only as ONNX: the same bundle as from torch, checked without it, and every refusal."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from acclimate.adapters.manifest import Manifest
from acclimate.export.backward.vjp import GRAD_THETA, vjp_graph
from acclimate.export.bundle_graphs import BundleGraphs, Quantized
from acclimate.export.calibration import CalibrationData
from acclimate.export.errors import CalibrationError, ExportError, UnsupportedModel
from acclimate.export.onnx_check import gradient_error
from acclimate.export.onnx_import import OnnxModel, compile_onnx, read_onnx
from acclimate.export.passes.sites import with_sites
from acclimate.export.session import run, session
from acclimate.export.trace import Preprocessed
from tests.export.commandline import acclimate
from tests.export.nets import PREPROCESSING, SHAPE, pictures, randomised, tiny_net
from tests.export.test_compile import SPEC


class Plain(nn.Module):
    """Convolution, norm, ReLU, twice, in names that are taken, with probabilities at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.theta = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.mix, self.stats = nn.Conv2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6)
        self.bias = nn.Linear(6 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.theta(self.scale(x)))
        x = torch.relu(self.stats(self.mix(x)))
        probabilities: Tensor = self.bias(x.flatten(1)).softmax(1)
        return probabilities


def plain() -> nn.Module:
    torch.manual_seed(1)
    return randomised(Plain(), 1)


def saved(model: nn.Module, path: Path, opset: int = 13, *, free_batch: bool = True, fold: bool = False) -> Path:
    """As most of the ONNX files that there are were made: by torch's first exporter."""
    mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.zeros(1, *SHAPE),), str(path), dynamo=False, training=mode, do_constant_folding=fold,
            opset_version=opset, input_names=["image"], output_names=["theta"],
            dynamic_axes={"image": {0: "n"}, "theta": {0: "n"}} if free_batch else None,
        )  # fmt: skip
    return path


def read(path: Path) -> OnnxModel:
    return read_onnx(path, SHAPE, PREPROCESSING)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_net(), tmp_path_factory.mktemp("onnx") / "tiny.onnx")


@pytest.mark.parametrize(("opset", "free_batch"), [(11, True), (13, False), (17, True)])
def test_the_imported_graph_computes_what_torch_does(tmp_path: Path, opset: int, free_batch: bool) -> None:
    model = read(saved(tiny_net(), tmp_path / "tiny.onnx", opset, free_batch=free_batch))
    inputs = pictures(7)
    with torch.no_grad():
        expected = Preprocessed(tiny_net(), PREPROCESSING)(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(run(session(model.graph), {"image": inputs})["logits"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.original.logits(inputs), expected, rtol=1e-4, atol=1e-5)
    assert model.classes == 3


def test_the_command_makes_a_bundle_that_adapts_like_the_torch_one(path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=pictures(200))
    given = ["--calibration", "c.npz", "--out", "tiny", "--mean", "0.4,0.5", "--std", "0.2,0.3", "--adapt", "norm"]
    result = acclimate(tmp_path, "export", "onnx", str(path), *given, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["sites"], report["parameters"]) == (4, 48)
    described = Manifest.from_json(json.loads((tmp_path / "tiny" / "manifest.json").read_text()))
    assert described.provenance["source"] == "onnx"
    assert [site.name for site in described.sites] == ["norm", "norm1", "norm2", "block.1"]
    assert [spec.name for spec in (*described.inputs, *described.outputs)] == ["image", "logits"]


def test_probabilities_become_logits_and_taken_names_are_renamed(tmp_path: Path) -> None:
    model = read(saved(plain(), tmp_path / "plain.onnx"))
    report = compile_onnx(model, CalibrationData(pictures(200)), SPEC, tmp_path / "plain")
    assert report.parity.forward_rel_error < 1e-5
    assert report.parity.vjp_rel_error < 1e-4
    assert report.parity.batch_stats_rel_error < 1e-5
    inputs = pictures(5)
    logits = run(session(model.graph), {"image": inputs})["logits"]
    with torch.no_grad():
        expected = Preprocessed(plain(), PREPROCESSING)(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(1).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_the_gradient_check_sees_a_wrong_gradient(path: Path) -> None:
    quantized = Quantized.of(with_sites(read(path).graph), pictures(64))
    finished, plain_vjp = BundleGraphs.of(quantized, 1.5).vjp, vjp_graph(quantized.model)
    assert gradient_error(quantized, finished, plain_vjp, pictures(16)) < 1e-4
    broken = finished.copy()
    # The stem's gradient of gamma stands where that of beta should, and the other way round.
    position = next(i for i, node in enumerate(broken.nodes) if node.output == GRAD_THETA)
    node = broken.nodes[position]
    swapped = (node.inputs[1], node.inputs[0], *node.inputs[2:])
    broken.nodes[position] = replace(node, inputs=swapped)
    assert gradient_error(quantized, broken, plain_vjp, pictures(16)) > 1e-2


def edited(path: Path, out: Path, edit) -> Path:
    proto = onnx.load(path)
    edit(proto)
    onnx.save(proto, out)
    return out


def spoil(proto: onnx.ModelProto) -> None:
    entry = next(e for e in proto.graph.initializer if e.name == "stem.weight")
    array = numpy_helper.to_array(entry).copy()
    array[0, 0, 0, 0] = np.inf
    entry.CopyFrom(numpy_helper.from_array(array, entry.name))


def widen(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def foreign(proto: onnx.ModelProto) -> None:
    next(node for node in proto.graph.node if node.op_type == "Relu").domain = "com.example"
    proto.opset_import.append(helper.make_opsetid("com.example", 1))


def doubled(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("second", 1, (1,)))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (spoil, "weight 'stem.weight' is not finite"),
        (widen, "is DOUBLE; FLOAT or UINT8 is expected"),
        (doubled, "exactly one image is expected"),
        (foreign, "domain 'com.example'"),
    ],
)
def test_files_that_cannot_be_translated(path: Path, tmp_path: Path, edit, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message) as raised:
        read(edited(path, tmp_path / "edited.onnx", edit))
    assert "\n" not in str(raised.value)


def test_a_model_whose_norms_are_folded_says_how_to_keep_them(tmp_path: Path) -> None:
    model = read(saved(tiny_net(), tmp_path / "folded.onnx", fold=True))
    with pytest.raises(UnsupportedModel, match="exporters fold it into convolutions by default"):
        compile_onnx(model, CalibrationData(pictures(16)), SPEC, tmp_path / "out")


def test_files_that_cannot_be_read(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be read"):
        read(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no protobuf")
    with pytest.raises(ExportError, match="not a valid ONNX model"):
        read(tmp_path / "text.onnx")
    with pytest.raises(CalibrationError, match=r"samples have shape \[3, 9, 9\]; input 'image' takes \[2, 9, 9\]"):
        read_onnx(path, (3, 9, 9), PREPROCESSING)
