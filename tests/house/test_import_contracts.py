"""Imports run one way: every contract of `[tool.importlinter]` holds, and every one can fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT, package_dirs, pyproject

# Contract id -> a module of ours, and an import that it must not have.
VIOLATIONS = {
    "adapters-are-pure": ("acclimate.adapters.layout", "import acclimate.runtime.errors"),
    "adapters-do-no-io": ("acclimate.adapters.layout", "import time"),
    "algorithms-stay-apart": ("acclimate.adapters.objectives", "import acclimate.adapters.optimisers"),
    "runtime-alone": ("acclimate.runtime.errors", "import acclimate.export"),
    "export-alone": ("acclimate.export", "import acclimate.runtime.errors"),
    "examples-are-users": ("acclimate.examples", "import acclimate.runtime.errors"),
    "stubs-at-the-edges": ("acclimate.runtime.errors", "import grpc"),
    "wiring-chooses": ("acclimate.runtime.errors", "import acclimate.runtime.engines.onnx"),
    "onnxruntime-in-one-place": ("acclimate.runtime.errors", "import onnxruntime"),
    "metrics-in-one-place": ("acclimate.runtime.errors", "import prometheus_client"),
    "tracing-in-one-place": ("acclimate.runtime.errors", "import opentelemetry"),
    "serving-without-torch": ("acclimate.runtime.errors", "import torch"),
    "no-pickle": ("acclimate.export", "import pickle"),
}


def test_contracts_hold() -> None:
    result = _lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert _verdicts(result.stdout) == dict.fromkeys(_names().values(), "KEPT")


def test_every_contract_has_a_violation_to_prove_it() -> None:
    assert set(VIOLATIONS) == set(_names())


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_contract_can_fail(contract: str, tmp_path: Path) -> None:
    module, line = VIOLATIONS[contract]
    _import_tree(tmp_path)
    with _file(tmp_path, module).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    result = _lint_imports(tmp_path, "--contract", contract)
    assert result.returncode == 1, result.stdout + result.stderr
    assert _verdicts(result.stdout) == {_names()[contract]: "BROKEN"}


def _names() -> dict[str, str]:
    return {entry["id"]: entry["name"] for entry in pyproject()["tool"]["importlinter"]["contracts"]}


def _lint_imports(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the packages of `folder`, which win over the installed ones."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache", *arguments]
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _verdicts(output: str) -> dict[str, str]:
    """Contract name -> KEPT or BROKEN."""
    return dict(re.findall(r"^(.+?) (KEPT|BROKEN)(?: \(.*\))?$", output, flags=re.MULTILINE))


def _import_tree(folder: Path) -> None:
    """Lay the packages out under their import names, so that a plain path import finds them."""
    shutil.copy2(ROOT / "pyproject.toml", folder)
    for package, source in package_dirs().items():
        target = folder.joinpath(*package.split("."))
        target.mkdir(parents=True, exist_ok=True)
        for path in (ROOT / source).glob("*.py"):
            shutil.copy2(path, target)


def _file(folder: Path, module: str) -> Path:
    path = folder.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
