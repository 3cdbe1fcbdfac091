"""All of a bundle, or nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from acclimate.adapters.layout import Layout
from acclimate.adapters.manifest import Calibration, Cost, Manifest
from acclimate.export.errors import ExportError
from acclimate.export.write import file_entries, write_bundle

FILES = {"frozen.onnx": b"one", "vjp.onnx": b"two"}
MANIFEST = Manifest(
    name="m", version="1", task="image-classification", classes=("a",), inputs=(), outputs=(),
    parameters=Layout(()), statistics=Layout(()), sites=(), calibration=Calibration(1.0, True, 1.0, 0.0, 0.5),
    cost=Cost(1.0, 1.0, 1.0, 1.0), files=file_entries(FILES), provenance={},
)  # fmt: skip


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_a_new_bundle_makes_its_parents(tmp_path: Path) -> None:
    write_bundle(tmp_path / "deep" / "bundle", FILES, MANIFEST)
    assert names(tmp_path / "deep") == ["bundle"]
    assert names(tmp_path / "deep" / "bundle") == ["frozen.onnx", "manifest.json", "vjp.onnx"]
    assert (tmp_path / "deep" / "bundle").stat().st_mode & 0o777 == 0o755


def test_an_older_bundle_is_replaced_whole(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", FILES | {"old": b"old"}, MANIFEST)
    write_bundle(tmp_path / "bundle", FILES, MANIFEST)
    assert names(tmp_path) == ["bundle"]
    assert "old" not in names(tmp_path / "bundle")


@pytest.mark.parametrize("broken", ["content", "manifest"])
def test_a_failure_half_way_leaves_the_older_bundle(tmp_path: Path, broken: str) -> None:
    write_bundle(tmp_path / "bundle", FILES, MANIFEST)
    files = FILES | ({"no/such/folder": b"three"} if broken == "content" else {})
    manifest = MANIFEST if broken == "content" else replace(MANIFEST, cost=Cost(float("nan"), 1.0, 1.0, 1.0))
    with pytest.raises((OSError, ValueError)):
        write_bundle(tmp_path / "bundle", files, manifest)
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["frozen.onnx", "manifest.json", "vjp.onnx"]


def test_the_older_bundle_comes_back_if_the_last_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "bundle", FILES | {"old": b"old"}, MANIFEST)

    def full(_: Path, target: Path) -> Path:
        raise OSError(f"no space left for {target.name}")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="no space left for bundle"):
        write_bundle(tmp_path / "bundle", FILES, MANIFEST)
    assert names(tmp_path) == ["bundle"]
    assert "old" in names(tmp_path / "bundle")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_other_content_is_left_alone(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "precious"
    (out / "inner").mkdir(parents=True) if kind == "folder" else out.write_text("data")
    with pytest.raises(ExportError, match="exists and is not a bundle; choose another folder"):
        write_bundle(out, FILES, MANIFEST)
    assert names(tmp_path) == ["precious"]
