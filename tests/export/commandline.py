"""`acclimate` as its users run it, with the exporter's commands registered as an installed package registers them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

ENTRY = "[acclimate.commands]\nexport = acclimate.export.cli:app\n"
METADATA = "Metadata-Version: 2.1\nName: acclimate-commands\nVersion: 0\n"
MAIN = "from acclimate.runtime.cli import main; main()"


def acclimate(folder: Path, *arguments: str, hidden: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`; packages named in `hidden` are as if they were not installed."""
    described = folder / ".path" / "acclimate_commands-0.dist-info"
    described.mkdir(parents=True, exist_ok=True)
    (described / "entry_points.txt").write_text(ENTRY, encoding="utf-8")
    (described / "METADATA").write_text(METADATA, encoding="utf-8")
    hide = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in hidden)
    (folder / ".path" / "sitecustomize.py").write_text(hide, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "FORCE_COLOR"}
    environment["PYTHONPATH"] = os.pathsep.join((str(folder / ".path"), str(ROOT)))
    command = [sys.executable, "-W", "ignore", "-c", MAIN, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=240
    )


def refusal(result: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Exit code and the one line that says why."""
    assert result.stdout == "", result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("acclimate: ")
    return result.returncode, line
