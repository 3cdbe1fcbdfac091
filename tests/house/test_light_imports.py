"""A device pays only for what serving needs: no training stack in the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "onnx", "onnxscript", "optimum", "scipy", "sklearn", "matplotlib", "opentelemetry")
PROBE = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps([name for name in sys.argv[2].split(",") if name in sys.modules]))
"""


@pytest.mark.parametrize("part", ["cli", "client", "daemon"])
def test_serving_imports_no_training_stack(part: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROBE, f"acclimate.runtime.{part}", ",".join(HEAVY)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []


def test_the_probe_sees_an_import(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROBE, "onnx", ",".join(HEAVY)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == ["onnx"]
