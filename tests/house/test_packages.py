"""`pyproject.toml` says what is in the tree, and asks for what the design asks for."""

from __future__ import annotations

import re

import pytest

from tests.house.tree import ROOT, package_dirs, pyproject, tracked

SOURCE_FOLDERS = ("adapters", "examples", "export", "proto", "runtime")


def test_every_package_is_listed_and_every_listed_package_exists() -> None:
    listed = set(package_dirs().values())
    found = {path.parent for path in tracked() if path.name == "__init__.py" and path.parts[0] in SOURCE_FOLDERS}
    assert found == listed, "tool.setuptools.packages and the folders with an __init__.py differ"


def test_no_module_lies_outside_a_package() -> None:
    inside = set(package_dirs().values())
    modules = [path for path in tracked() if path.suffix == ".py" and path.parts[0] in SOURCE_FOLDERS]
    # proto/generate.py is a script of the repository, not a part of the installed package.
    strays = [str(path) for path in modules if path.parent not in inside and path.parts[:-1] != ("proto",)]
    assert not strays, f"these modules would be missing from the wheel: {strays}"


def test_acclimate_stays_a_namespace() -> None:
    assert not [path for path in tracked() if path.parts[-2:] == ("acclimate", "__init__.py")]


@pytest.mark.parametrize(
    ("extra", "needs"),
    [
        ("cpu", {"onnxruntime"}),
        ("gpu", {"onnxruntime-gpu"}),
        ("export", {"torch", "onnx", "onnxscript", "optimum"}),
        ("llm", {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "gguf"}),
        ("dev", {"torch", "pytest", "ruff", "mypy", "import-linter", "hypothesis", "buf-bin", "build"}),
    ],
)
def test_the_extras_are_what_the_design_lists(extra: str, needs: set[str]) -> None:
    assert needs <= _names(pyproject()["project"]["optional-dependencies"][extra])


@pytest.mark.parametrize("extra", [None, "cpu", "demo"])
def test_a_device_installs_no_training_stack(extra: str | None) -> None:
    project = pyproject()["project"]
    requirements = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    assert not _names(requirements) & {"torch", "transformers", "onnx", "onnxscript", "optimum"}


def test_development_pins_torch() -> None:
    assert any(re.match(r"torch==\d", line) for line in pyproject()["project"]["optional-dependencies"]["dev"])


def test_the_licence_is_apache_2() -> None:
    assert pyproject()["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0] for line in requirements}
