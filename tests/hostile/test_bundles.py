"""A bundle that was damaged, forged or never one is refused by name before anything of it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from acclimate.adapters.manifest import MANIFEST_FILE, REQUIRED_FILES, SOURCE_FILE
from acclimate.runtime.bundle import BundleError, read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions
from tests.hostile.bundles import copied, drop, edit_manifest, flip, replace, set_at


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Path:
    return copied(bundle_path, tmp_path / "bundle")


def refused(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        OnnxEngine(read_bundle(bundle), OnnxOptions())
    return str(caught.value)


def test_the_committed_bundle_is_accepted(bundle: Path) -> None:
    OnnxEngine(read_bundle(bundle), OnnxOptions()).close()


@pytest.mark.parametrize("name", REQUIRED_FILES)
@pytest.mark.parametrize("position", [0.0, 0.37, 1.0])
def test_one_flipped_bit_anywhere_is_found_and_its_file_named(bundle: Path, name: str, position: float) -> None:
    flip(bundle / name, position)
    message = refused(bundle)
    assert str(bundle / name) in message
    assert "SHA-256" in message


@pytest.mark.parametrize("name", [*REQUIRED_FILES, MANIFEST_FILE])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    message = refused(bundle)
    assert str(bundle / name) in message
    assert "cannot be read" in message


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_a_file_that_grew_is_not_read_to_its_end(bundle: Path, name: str) -> None:
    with (bundle / name).open("ab") as file:
        file.write(b"more")
    assert f"{bundle / name}: longer than" in refused(bundle)


def test_what_is_no_directory_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a bundle")
    for path in (tmp_path / "nothing", tmp_path / "file", tmp_path):
        assert str(path) in refused(path)


MANIFESTS = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b"\xff\xfe{}",
    "a list": b"[]",
    "a number": b"7",
    "nothing in it": b"{}",
    "another format": b'{"format": "onnx"}',
    "nested without end": b"[" * 200_000,
    "a number without end": b'{"format": "acclimate.bundle", "format_version": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_that_is_none_is_refused(bundle: Path, case: str) -> None:
    (bundle / MANIFEST_FILE).write_bytes(MANIFESTS[case])
    assert str(bundle / MANIFEST_FILE) in refused(bundle)


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another version": (set_at("format_version", value=2), "format_version is 2"),
    "a name with a slash": (set_at("name", value="a/b"), "name is 'a/b'"),
    "no name": (set_at("name", value=""), "name is ''"),
    "no inputs": (set_at("inputs", value=[]), "0 inputs"),
    "an unknown datatype": (set_at("inputs", 0, "datatype", value="TEXT"), "inputs are"),
    "an input without a batch": (set_at("inputs", 0, "shape", value=[1, 28, 28]), "inputs are"),
    "an input of a negative size": (set_at("inputs", 0, "shape", value=[-1, 1, -28, 28]), "inputs are"),
    "a shape of texts": (set_at("inputs", 0, "shape", value=["a"]), "malformed field"),
    "no outputs": (set_at("outputs", value=[]), "outputs are"),
    "fewer classes than outputs": (set_at("classes", value=["0", "1"]), "outputs are"),
    "classes that are none": (set_at("classes", value=7), "malformed field"),
    "no sites key": (drop("sites"), "'sites' is missing"),
    "a site of unknown slices": (set_at("sites", 0, "scale", value="nothing"), "site 'norm' expects"),
    "an epsilon in words": (set_at("sites", 0, "epsilon", value="small"), "finite numbers"),
    "a site with another field": (set_at("sites", 0, "extra", value=1), "malformed field"),
    "a slice out of line": (set_at("parameters", 1, "offset", value=17), "starts at 17; expected 16"),
    "a slice of a negative size": (set_at("parameters", 0, "shape", value=[-16]), "starts at 16"),
    "a cost of NaN": (set_at("cost", "vjp_ms", value=float("nan")), "finite numbers"),
    "a negative cost": (set_at("cost", "vjp_ms", value=-1), "finite numbers"),
    "a threshold in words": (set_at("calibration", "confidence_threshold", value="high"), "finite numbers"),
    "a hash that is none": (set_at("files", SOURCE_FILE, "sha256", value=5), "sha256"),
    "a size in words": (set_at("files", SOURCE_FILE, "bytes", value="many"), "size in bytes"),
    "a size beyond all bounds": (set_at("files", SOURCE_FILE, "bytes", value=10**30), "size in bytes"),
    "a negative size": (set_at("files", SOURCE_FILE, "bytes", value=-2), "size in bytes"),
    "a graph that is not listed": (drop("files", "vjp.onnx"), "not listed"),
    "a path upward": (
        lambda document: document["files"].update({"../outside": document["files"][SOURCE_FILE]}),
        "plain name",
    ),
    "an absolute path": (
        lambda document: document["files"].update({"/etc/hostname": document["files"][SOURCE_FILE]}),
        "plain name",
    ),
    "a path of another system": (
        lambda document: document["files"].update({"..\\outside": document["files"][SOURCE_FILE]}),
        "plain name",
    ),
    "a name with a NUL": (
        lambda document: document["files"].update({"a\0b": document["files"][SOURCE_FILE]}),
        "cannot be read",
    ),
    "a name that is no text": (
        lambda document: document["files"].update({"\ud800": document["files"][SOURCE_FILE]}),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("case", EDITS)
def test_a_forged_manifest_is_refused_with_what_is_wrong(bundle: Path, case: str) -> None:
    edit, expected = EDITS[case]
    edit_manifest(bundle, edit)
    assert expected in refused(bundle)


def test_a_path_upward_is_not_even_opened(bundle: Path) -> None:
    """The file is there and its hash is right; it still lies outside."""
    secret = bundle.parent / "secret"
    secret.write_bytes((bundle / SOURCE_FILE).read_bytes())
    document = json.loads((bundle / MANIFEST_FILE).read_text())
    edit_manifest(bundle, lambda d: d["files"].update({"../secret": document["files"][SOURCE_FILE]}))
    assert "plain name" in refused(bundle)


def forge_source(bundle: Path, **changes: np.ndarray | None) -> None:
    tensors = load((bundle / SOURCE_FILE).read_bytes())
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    replace(bundle, SOURCE_FILE, save(tensors))


SOURCES: dict[str, dict[str, np.ndarray | None]] = {
    "no theta": {"theta": None},
    "theta of another length": {"theta": np.zeros(3, np.float32)},
    "stats of another type": {"stats": np.zeros(3, np.int64)},
    "a prior of NaN": {"class_prior": np.full(10, np.nan, np.float32)},
    "no canaries": {"canary__inputs": None},
    "canaries of another shape": {"canary__inputs": np.zeros((4, 3), np.uint8), "canary__labels": np.zeros(4, int)},
    "canaries of another type": {
        "canary__inputs": np.zeros((4, 1, 28, 28), np.float32),
        "canary__labels": np.zeros(4, int),
    },
    "canaries of unknown classes": {
        "canary__inputs": np.zeros((4, 1, 28, 28), np.uint8),
        "canary__labels": np.full(4, 10),
    },
    "more labels than canaries": {"canary__labels": np.zeros(1000, int)},
    "nothing to fold with": {"fold__offset": None},
    "a histogram of another type": {"histogram__entropy": np.zeros(20, np.int64)},
    "a histogram of NaN": {"histogram__confidence": np.full(20, np.nan, np.float32)},
}


@pytest.mark.parametrize("case", SOURCES)
def test_arrays_that_do_not_fit_are_refused_even_with_the_right_hash(bundle: Path, case: str) -> None:
    forge_source(bundle, **SOURCES[case])
    assert "export" in refused(bundle)


WIDTH = 64


def feature_arrays() -> dict[str, np.ndarray | None]:
    single = {"centres": (10, WIDTH), "shares": (10,), "factor": (WIDTH, 3), "residual": (WIDTH,), "scale": (10,)}
    arrays = {f"features__{name}": np.zeros(shape, np.float32) for name, shape in (single | {"bias": (10,)}).items()}
    return {**arrays, "features__weight": np.zeros((10, WIDTH), np.int8)}


FEATURES: dict[str, dict[str, np.ndarray | None]] = {
    "no centres": {"features__centres": None},
    "no shares": {"features__shares": None},
    "another width": {"features__residual": np.zeros(WIDTH - 1, np.float32)},
    "groups that are not the classes": {
        "features__centres": np.zeros((4, WIDTH), np.float32),
        "features__shares": np.zeros(4, np.float32),
    },
    "a factor of NaN": {"features__factor": np.full((WIDTH, 3), np.nan, np.float32)},
    "a weight of another type": {"features__weight": np.zeros((10, WIDTH), np.float32)},
    "shares without an axis": {"features__shares": np.zeros((), np.float32)},
}


@pytest.mark.parametrize("case", FEATURES)
def test_features_that_do_not_fit_are_refused(bundle: Path, case: str) -> None:
    edit_manifest(bundle, set_at("features", value=WIDTH))
    forge_source(bundle, **feature_arrays())
    figures = read_bundle(bundle).source.features
    assert figures is not None
    assert figures.width == WIDTH
    forge_source(bundle, **feature_arrays() | FEATURES[case])
    assert "'features." in refused(bundle)


def test_a_manifest_may_not_promise_features_that_the_graph_has_not(bundle: Path) -> None:
    edit_manifest(bundle, set_at("features", value=WIDTH + 1))
    forge_source(bundle, **dict.fromkeys(feature_arrays().keys() & _present(bundle)))
    assert "'features'" in refused(bundle)


def _present(bundle: Path) -> set[str]:
    return {name.replace(".", "__") for name in load((bundle / SOURCE_FILE).read_bytes())}


@pytest.mark.parametrize("name", REQUIRED_FILES)
@pytest.mark.parametrize("content", [b"", b"garbage", b"\0" * 4096])
def test_files_that_are_not_what_they_are_called_are_refused_even_with_the_right_hash(
    bundle: Path, name: str, content: bytes
) -> None:
    replace(bundle, name, content)
    assert str(bundle / name) in refused(bundle)


def test_a_graph_in_another_graphs_place_is_refused(bundle: Path) -> None:
    replace(bundle, "forward.onnx", (bundle / "frozen.onnx").read_bytes())
    assert "forward.onnx: inputs are" in refused(bundle)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_no_edit_of_a_manifest_is_a_crash(bundle_path: Path, tmp_path_factory: Any, data: st.DataObject) -> None:
    """Any JSON value in any place: the bundle is read, or refused as a bundle."""
    folder = tmp_path_factory.getbasetemp() / "edited"
    if not folder.exists():
        copied(bundle_path, folder)
    document = json.loads((bundle_path / MANIFEST_FILE).read_text())
    inner: Any = document
    while True:
        steps = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        step = data.draw(st.sampled_from(steps))
        if not isinstance(inner[step], dict | list) or not inner[step] or data.draw(st.booleans()):
            break
        inner = inner[step]
    json_value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=4), inside, max_size=3),
        max_leaves=6,
    )
    inner[step] = data.draw(json_value)
    (folder / MANIFEST_FILE).write_text(json.dumps(document))
    try:
        read_bundle(folder)
    except BundleError as error:
        assert str(folder) in str(error)
