"""Wheel, sdist and editable install each import from a fresh environment, with their data files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.house.tree import ROOT, copy_tree, package_dirs, pyproject, tracked

EDITABLE = "import setuptools.build_meta as backend, sys; backend.build_editable(sys.argv[1])"
PROBE = """
import importlib, importlib.metadata, json, pathlib, sys
origins = {name: importlib.import_module(name).__file__ for name in json.loads(sys.argv[1])}
folders = {name: pathlib.Path(origin).parent for name, origin in origins.items()}
files = {name: sorted(path.name for path in folder.rglob("*")) for name, folder in folders.items()}
entry_points = [entry.name for entry in importlib.metadata.distribution("acclimate").entry_points]
print(json.dumps({"origins": origins, "entry_points": entry_points, "files": files}))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, so that building leaves nothing behind in it."""
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheels by kind: built from the tree, from the sdist (which `build` does by default), and editable."""
    kinds = {kind: tmp_path_factory.mktemp(kind) for kind in ("wheel", "sdist", "editable")}
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    _run([*build, str(kinds["wheel"]), "--wheel", str(tree)], tree)
    _run([*build, str(kinds["sdist"]), str(tree)], tree)
    _run([sys.executable, "-c", EDITABLE, str(kinds["editable"])], tree)
    return {kind: next(folder.glob("*.whl")) for kind, folder in kinds.items()}


@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_an_install_imports_everywhere(kind: str, built: dict[str, Path], tree: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "venv", built[kind])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    seen = json.loads(_run([str(python), "-I", "-c", PROBE, json.dumps(list(package_dirs()))], elsewhere))
    home = tree if kind == "editable" else tmp_path / "venv"
    strays = {name: path for name, path in seen["origins"].items() if not Path(path).is_relative_to(home)}
    assert not strays, f"imported from outside the {kind} install"
    assert {"acclimate", *pyproject()["project"]["entry-points"]["acclimate.demos"]} <= set(seen["entry_points"])
    for package, folder in package_dirs().items():
        missing = _data_files(folder) - set(seen["files"][package])
        assert not missing, f"{package} lacks {missing} in the {kind} install"
    assert "serve" in _run([str(python.with_name("acclimate")), "--help"], elsewhere)


def _data_files(folder: Path) -> set[str]:
    """Names of what a package needs beside Python modules: protos, stub types, type marker, bundle, web page."""
    inside = [path for path in tracked() if path.is_relative_to(folder) and path.suffix != ".py"]
    shipped = [path for path in inside if path.suffix in {".proto", ".pyi"} or path.name == "py.typed"]
    held = [path for path in inside if path.parent.name == "bundle" or "static" in path.parts]
    return {path.name for path in shipped + held}


def _environment(folder: Path, wheel: Path) -> Path:
    """A fresh venv with the wheel alone installed; its dependencies are borrowed from this interpreter's."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], ROOT)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    _run([*pip, "install", "--no-deps", "--no-index", "--quiet", str(wheel)], ROOT)
    site = _run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], ROOT).strip()
    # A path line borrows packages but not the .pth files beside them, so our own editable install stays out.
    Path(site, "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def _run(command: list[str], folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout
