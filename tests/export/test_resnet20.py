"""A pretrained ResNet-20 on real pictures, where the benchmark data are present."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from acclimate.adapters.manifest import Manifest
from acclimate.export import BundleSpec, CalibrationData, Preprocessing, Report, compile_model
from acclimate.export.session import first_output, session
from benchmarks._resnet_cifar import CLASSES, MEAN, STD, load_resnet

pytestmark = pytest.mark.slow


def pictures(path: Path, count: int) -> CalibrationData:
    with np.load(path) as stored:
        return CalibrationData(
            np.ascontiguousarray(stored["x"][:count].transpose(0, 3, 1, 2)), stored["y"][:count].astype(np.int64)
        )


@pytest.fixture(scope="module")
def exported(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    out = tmp_path_factory.mktemp("bundles") / "resnet20"
    model = load_resnet(shared_data / "models" / "resnet20_cifar10.safetensors", 20)
    spec = BundleSpec(name="resnet20", classes=CLASSES, preprocessing=Preprocessing(MEAN, STD))
    return out, compile_model(model, pictures(shared_data / "cifar10c" / "source.npz", 400), spec, out)


def test_parity_and_size(exported: tuple[Path, Report]) -> None:
    path, report = exported
    assert report.parity.forward_rel_error <= 1e-4
    assert report.parity.vjp_rel_error <= 1e-3
    assert report.parity.int8_drop_points is not None
    assert report.parity.int8_drop_points <= 0.5
    assert (report.sites, report.parameters) == (19, 1376)
    assert report.file_bytes["frozen.onnx"] < 0.3 * report.float_bytes
    described = Manifest.from_json(json.loads((path / "manifest.json").read_text()))
    assert described.sites[-1].name == "layer3.2.bn2"
    # 40.6 million multiply-accumulates, as every count of this network has it.
    assert described.cost.forward_flops == pytest.approx(81.1e6, rel=0.01)


def test_int8_accuracy_on_pictures_it_was_not_calibrated_on(exported: tuple[Path, Report], shared_data: Path) -> None:
    clean = pictures(shared_data / "cifar10c" / "clean.npz", 1000)
    logits = first_output(session(exported[0] / "frozen.onnx"), clean.inputs)
    # The data's README gives 81.03 % for the float model on all of the decoded test set.
    assert (logits.argmax(1) == clean.labels).mean() > 0.79
