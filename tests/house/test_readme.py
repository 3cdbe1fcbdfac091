"""The README's commands exist and its client example runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from acclimate.runtime.client.local import local_daemon
from tests.house.tree import ROOT

PAGES = ("README.md", "CONTRIBUTING.md")
ADDRESS = "127.0.0.1:8001"


def test_the_client_example_runs(bundle_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert ADDRESS in code
    with local_daemon([bundle_path]) as daemon:
        command = [sys.executable, "-c", code.replace(ADDRESS, daemon.target)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"\d+ updates, \d+ rolled back, \d+% estimated accuracy\n", result.stdout)


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_named_exists(page: str) -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(_code(page))))
    assert {"demo", "test"} <= named
    for target in sorted(named):
        result = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_make_help_lists_the_targets() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "test-all", "lint", "proto", "bench", "clean"):
        assert re.search(rf"^ *make {target}\s", shown, re.M), target


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert re.search(r"^make test\b", script.read_text(encoding="utf-8"), re.M)


def _code(page: str) -> list[str]:
    """What a page sets in code: blocks and spans."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    return blocks + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
