"""From a module to a bundle, and every way in which that is refused."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from acclimate.adapters.folding import Folding, fold
from acclimate.adapters.manifest import REQUIRED_FILES, Manifest
from acclimate.export import BundleSpec, CalibrationData, Report, compile_model
from acclimate.export.errors import CalibrationError, ExportError, UnsupportedModel, VerificationError
from acclimate.export.session import first_output, session
from acclimate.export.trace import Preprocessed
from acclimate.export.verify import Limits
from tests.export.nets import CLASSES, PREPROCESSING, calibration, odd_net, pictures, tiny_net

SPEC = BundleSpec(name="tiny", classes=CLASSES, preprocessing=PREPROCESSING, canaries=9)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    return out, compile_model(tiny_net(), calibration(200, labelled=True), SPEC, out)


def manifest(path: Path) -> Manifest:
    return Manifest.from_json(json.loads((path / "manifest.json").read_text()))


def test_the_manifest_describes_every_file(bundle: tuple[Path, Report]) -> None:
    path, _ = bundle
    entries = manifest(path).files
    assert set(entries) == {file.name for file in path.iterdir()} - {"manifest.json"}
    assert set(REQUIRED_FILES) <= set(entries)
    for name, entry in entries.items():
        content = (path / name).read_bytes()
        assert (entry.sha256, entry.bytes) == (hashlib.sha256(content).hexdigest(), len(content)), name


def test_the_graphs_are_valid_and_declare_what_the_format_says(bundle: tuple[Path, Report]) -> None:
    path, _ = bundle
    expected = {
        "frozen.onnx": (["image"], ["logits"]),
        "forward.onnx": (["image", "scale", "bias"], ["logits"]),
        "vjp.onnx": (
            ["image", "theta", "stats", "mix", "alpha", "cotangent"],
            ["logits", "features", "grad_theta", "batch_stats"],
        ),
        "observe.onnx": (["image", "theta", "stats", "mix", "alpha"], ["logits", "features", "batch_stats"]),
    }
    for name, names in expected.items():
        running = session((path / name).read_bytes())
        defaults = [entry.name for entry in running.get_overridable_initializers()]
        assert defaults == (["cotangent_features"] if name == "vjp.onnx" else []), name
        assert ([i.name for i in running.get_inputs()], [o.name for o in running.get_outputs()]) == names, name
    for name in ("vjp.onnx", "observe.onnx"):
        onnx.checker.check_model(onnx.load(path / name), full_check=True)


def test_the_arrays_fit_the_layouts(bundle: tuple[Path, Report]) -> None:
    path, _ = bundle
    described, arrays = manifest(path), load_file(path / "source.safetensors")
    size, channels = described.parameters.size, sum(site.channels for site in described.sites)
    shapes = {name: array.shape for name, array in arrays.items()}
    width = described.features
    assert width == 8
    assert shapes == {
        "theta": (size,),
        "stats": (described.statistics.size,),
        "fisher": (size,),
        "class_prior": (3,),
        "canary.inputs": (9, 2, 9, 9),
        "canary.labels": (9,),
        "fold.weight_scale": (channels,),
        "fold.input_scale": (channels,),
        "fold.offset": (channels,),
        "histogram.entropy": (20,),
        "histogram.confidence": (20,),
        "features.centres": (1, width),
        "features.shares": (1,),
        "features.factor": (width, width),
        "features.residual": (width,),
        "features.weight": (3, width),
        "features.scale": (3,),
        "features.bias": (3,),
    }
    assert (arrays["fisher"] >= 0).all()
    assert np.count_nonzero(arrays["fisher"]) > 0.8 * size
    assert arrays["class_prior"].sum() == pytest.approx(1, abs=1e-5)
    assert (arrays["canary.inputs"].dtype, arrays["canary.labels"].dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(arrays["fold.offset"][:4], tiny_net().get_parameter("stem.bias").detach().numpy())


def test_written_forward_is_written_frozen_bit_for_bit(bundle: tuple[Path, Report]) -> None:
    path, _ = bundle
    described, arrays = manifest(path), load_file(path / "source.safetensors")
    parts = {name.removeprefix("fold."): array for name, array in arrays.items() if name.startswith("fold.")}
    folding = Folding.of(described.sites, described.parameters, described.statistics, parts)
    scale, bias = fold(folding, arrays["theta"], arrays["stats"])
    inputs = pictures(33, seed=5)
    np.testing.assert_array_equal(
        first_output(session((path / "forward.onnx").read_bytes()), inputs, scale=scale, bias=bias),
        first_output(session((path / "frozen.onnx").read_bytes()), inputs),
    )


def test_the_report_says_what_was_found(bundle: tuple[Path, Report]) -> None:
    path, report = bundle
    assert json.loads((path / "report.json").read_text()) == json.loads(json.dumps(report.to_json()))
    page = (path / "report.md").read_text()
    assert "VJP against float64 autograd" in page
    assert f"{report.parity.int8_drop_points:.2f} points" in page
    assert report.parity.vjp_rel_error < 1e-4
    # By hand: four convolutions and the classifier, two operations for each multiply-accumulate.
    macs = 81 * 4 * 2 * 9 + 81 * 4 * 9 + 25 * 8 * 4 * 9 + 25 * 8 * 8 + 8 * 3
    assert report.cost.forward_flops == 2 * macs
    # Backward again, but not below the first norm; the shortcut's gradient is spread by a convolution with ones.
    assert report.cost.vjp_flops == 2 * (2 * macs - 81 * 4 * 2 * 9 + 25 * 4)


def test_nothing_in_a_bundle_names_this_machine(bundle: tuple[Path, Report]) -> None:
    path, _ = bundle
    for file in path.iterdir():
        content = file.read_bytes()
        for word in (str(path.parent), str(Path.home()), "site-packages"):
            assert word.encode() not in content, f"{file.name} holds {word!r}"


def test_a_second_export_gives_the_same_graphs_and_replaces_the_first(
    tmp_path: Path, bundle: tuple[Path, Report]
) -> None:
    out = tmp_path / "tiny"
    out.mkdir()
    (out / "manifest.json").write_text("{}")
    (out / "left-over").write_text("old")
    compile_model(tiny_net(), calibration(200, labelled=True), SPEC, out)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tiny"]
    for name in ("source.safetensors", "frozen.onnx", "forward.onnx", "vjp.onnx", "observe.onnx"):
        assert (out / name).read_bytes() == (bundle[0] / name).read_bytes(), name
    assert not (out / "left-over").exists()


def test_operators_without_an_integer_form_run_in_float(tmp_path: Path) -> None:
    data = calibration(200)
    report = compile_model(odd_net(), data, replace(SPEC, name="odd"), tmp_path / "odd")
    assert report.parity.int8_drop_points is None, "no labels were given"
    assert report.parity.vjp_rel_error < 1e-4
    ops = Counter(node.op_type for node in onnx.load(tmp_path / "odd" / "forward.onnx").graph.node)
    assert ops["QLinearConv"] == 3
    assert ops["QGemm"] == 1
    assert ops["Sigmoid"] == ops["Tanh"] == 1
    with torch.no_grad():
        expected = Preprocessed(odd_net(), PREPROCESSING)(torch.from_numpy(data.inputs)).numpy()
    got = first_output(session((tmp_path / "odd" / "frozen.onnx").read_bytes()), data.inputs)
    assert np.abs(got - expected).max() < 0.1 * np.abs(expected).max()
    described, arrays = manifest(tmp_path / "odd"), load_file(tmp_path / "odd" / "source.safetensors")
    assert (described.calibration.labelled, described.calibration.accuracy) == (
        False,
        described.calibration.mean_confidence,
    )
    np.testing.assert_array_equal(
        arrays["canary.labels"], got[_rows_of(arrays["canary.inputs"], data.inputs)].argmax(1)
    )


def _rows_of(some: np.ndarray, all_: np.ndarray) -> list[int]:
    known = {row.tobytes(): position for position, row in enumerate(all_)}
    return [known[row.tobytes()] for row in some]


class NotFinite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
        self.conv.weight.data[0, 0, 0, 0] = float("nan")

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mean((2, 3))


class NoNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ceil(self.norm(self.conv(x))).mean((2, 3))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


LABELS = np.zeros(64, np.int64)
REFUSALS = {
    "weights": (NotFinite, calibration(), SPEC, UnsupportedModel, "weight 'conv.weight' is not finite"),
    "no norm": (NoNorm, calibration(), SPEC, UnsupportedModel, "no adaptable norm matches"),
    "no match": (tiny_net, calibration(), replace(SPEC, sites=("bn*",)), UnsupportedModel, r"\['bn\*'\]"),
    "operator": (Unknown, calibration(), SPEC, UnsupportedModel, "operator Ceil has no backward rule"),
    "untraceable": (Branching, calibration(), SPEC, UnsupportedModel, "torch cannot export this model"),
    "channels": (tiny_net, CalibrationData(pictures(64, (3, 9, 9))), SPEC, UnsupportedModel, "cannot export"),
    "rank": (
        tiny_net,
        CalibrationData(pictures(64, (9, 9))),
        SPEC,
        CalibrationError,
        r"raw uint8 images \[N, C, H, W\]",
    ),
    "dtype": (tiny_net, CalibrationData(pictures(64) / 255), SPEC, CalibrationError, "inputs are float64"),
    "few": (tiny_net, calibration(3), SPEC, CalibrationError, "3 samples; give at least 16"),
    "label": (tiny_net, CalibrationData(pictures(64), LABELS + 3), SPEC, CalibrationError, "label 3 is outside 0..2"),
    "labels": (tiny_net, CalibrationData(pictures(64), LABELS[:9]), SPEC, CalibrationError, r"labels are int64 \[9\]"),
    "classes": (tiny_net, calibration(), replace(SPEC, classes=("a",)), CalibrationError, "1 names were given"),
    "limit": (
        tiny_net,
        calibration(),
        replace(SPEC, limits=Limits(vjp=1e-12)),
        VerificationError,
        "VJP error.*limit 1e-12",
    ),
    "int8": (
        tiny_net,
        calibration(labelled=True),
        replace(SPEC, limits=Limits(int8_points=-1)),
        VerificationError,
        "int8 accuracy drop in points is .* limit -1",
    ),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_refusals_say_why_in_one_line_and_leave_nothing(why: str, tmp_path: Path) -> None:
    make, data, spec, error, message = REFUSALS[why]
    with pytest.raises(error, match=message) as raised:
        compile_model(make(), data, spec, tmp_path / "bundles" / "tiny")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_other_content_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match="exists and is not a bundle"):
        compile_model(tiny_net(), calibration(), SPEC, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
