"""The repository as the house tests see it: its files, its packages and a copy to break or build."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ("_pb2.py", "_pb2_grpc.py", "_pb2.pyi")


@cache
def tracked() -> tuple[Path, ...]:
    """Files git tracks, or would if they were added, relative to the root; skips outside a checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = (Path(name) for name in listed.split("\0") if name)
    return tuple(sorted(name for name in names if (ROOT / name).is_file()))


def python_files() -> tuple[Path, ...]:
    """Hand-written Python files, relative to the root."""
    return tuple(path for path in tracked() if path.suffix == ".py" and not path.name.endswith(GENERATED))


@cache
def pyproject() -> dict[str, Any]:
    """`pyproject.toml`, parsed."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def package_dirs() -> dict[str, Path]:
    """Import name -> folder of every package that `pyproject.toml` lists, relative to the root."""
    setuptools = pyproject()["tool"]["setuptools"]
    return {name: _folder(name, setuptools["package-dir"]) for name in setuptools["packages"]}


def _folder(package: str, mapping: dict[str, str]) -> Path:
    root = max((name for name in mapping if f"{package}.".startswith(f"{name}.")), key=len)
    return Path(mapping[root], *package.removeprefix(root).split("."))


def copy_tree(target: Path) -> Path:
    """Copy every tracked file below `target`, which must not hold them yet."""
    for name in tracked():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target
