"""Layouts and manifests: round trips, and a clear refusal of everything that does not line up."""

import json

import numpy as np
import pytest

from acclimate.adapters.errors import LayoutError, ManifestError
from acclimate.adapters.layout import Layout
from acclimate.adapters.manifest import Manifest
from acclimate.runtime.engines.reference import reference_engine

LAYOUT = Layout.of([("a", "norm.scale", (2,)), ("b", "norm.shift", (2, 3))])


def test_pack_and_unpack_are_inverse() -> None:
    tensors = {"a": np.arange(2.0), "b": np.arange(6.0).reshape(2, 3)}
    row = LAYOUT.pack(tensors)
    assert row.dtype == np.float32
    assert row.shape == (LAYOUT.size,) == (8,)
    for name, tensor in LAYOUT.unpack(row).items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_columns_select_a_kind() -> None:
    np.testing.assert_array_equal(LAYOUT.columns("norm.shift"), np.arange(2, 8))
    assert LAYOUT.columns("lora.A").size == 0


def test_layout_survives_json_and_its_digest_tells_layouts_apart() -> None:
    again = Layout.from_json(json.loads(json.dumps(LAYOUT.to_json())))
    assert again == LAYOUT
    assert again.digest == LAYOUT.digest
    assert Layout.of([("a", "norm.scale", (3,))]).digest != LAYOUT.digest


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": np.zeros(2)}, "'b' is missing"),
        ({"a": np.zeros(3), "b": np.zeros((2, 3))}, r"'a' has shape \(3,\); expected \(2,\)"),
        ({"a": np.zeros(2), "b": np.zeros((2, 3)), "c": np.zeros(1)}, r"unknown tensors \['c'\]"),
    ],
)
def test_pack_refuses_what_does_not_fit(tensors: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        LAYOUT.pack(tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.update(offset=1), "starts at 1; expected 0"),
        (lambda e: e.update(kind="norm.other"), "has kind 'norm.other'"),
        (lambda e: e.update(name="b"), "appears twice"),
        (lambda e: e.pop("shape"), "malformed entry"),
    ],
)
def test_layout_refuses_malformed_entries(change, message: str) -> None:
    entries = LAYOUT.to_json()
    change(entries[0])
    with pytest.raises(LayoutError, match=message):
        Layout.from_json(entries)


def document() -> dict:
    return json.loads(json.dumps(reference_engine().manifest.to_json()))


def test_manifest_survives_json() -> None:
    assert Manifest.from_json(document()) == reference_engine().manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="zip"), "not an Acclimate bundle"),
        (lambda d: d.update(format_version=2), "format_version is 2"),
        (lambda d: d.pop("classes"), "'classes' is missing"),
        (lambda d: d["files"].pop("vjp.onnx"), "not listed"),
        (lambda d: d["files"].update({"../x": {"sha256": "0", "bytes": 1}}), "plain name"),
        (lambda d: d["sites"][0].update(channels=3), "expects 'norm.weight' of shape"),
        (lambda d: d["parameters"][0].update(offset=5), "starts at 5"),
        (lambda d: d.update(cost=3), "malformed field"),
        (lambda d: d.update(sites=[{"name": "x"}]), "malformed field"),
    ],
)
def test_manifest_refuses_what_is_wrong(change, message: str) -> None:
    wrong = document()
    change(wrong)
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(wrong)


def test_manifest_refuses_what_is_no_object() -> None:
    for value in (None, [], 3, "x"):
        with pytest.raises(ManifestError, match="not an Acclimate bundle"):
            Manifest.from_json(value)
