"""What a device pays before the first prediction: time until ready, memory, disk.

    python -m benchmarks.startup [--json] [--runs N] [--skip-install]

ready_seconds    process start to the ready line
rss_mb           resident memory after a few predictions on a fresh session
rss_ready_mb     resident memory at the ready line
rss_adapted_mb   resident memory after a few adaptation steps with gradients
installed_mb     what `pip install .[cpu]` adds to an empty site-packages, bytecode included

Figures of the daemon are medians over the runs. The first run is shown and not counted: it reads files that
later runs find in the page cache.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from acclimate.runtime.client import Client, Session
from acclimate.runtime.client.local import local_daemon
from benchmarks._report import ROOT, Report, Value, emit, parser

BUNDLE = ROOT / "examples" / "digits" / "bundle"
PREDICTIONS = 16
STEPS = 4
PATIENCE_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print."""
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=5, help="daemons to start after the first (default 5)")
    options.add_argument("--skip-install", action="store_true", help="leave installed_mb out")
    options.add_argument("--bundle", type=Path, default=BUNDLE, help="bundle to serve (default: the digits)")
    chosen = options.parse_args(arguments)
    if chosen.runs < 1:
        options.error(f"--runs is {chosen.runs}; at least 1 is needed")
    first, *runs = (start(chosen.bundle) for _ in range(chosen.runs + 1))
    figures = {name: median(run[name] for run in runs) for name in first}
    rows: list[Mapping[str, Value]] = [
        {"what": f"daemon, run {index}", **run} for index, run in enumerate([first, *runs])
    ]
    if not chosen.skip_install:
        figures["installed_mb"] = installed_mb()
    emit(Report("startup", figures, rows), as_json=chosen.json)


def start(bundle: Path) -> dict[str, float]:
    """Start one daemon, predict, adapt, stop it; what it took at each point."""
    with local_daemon([bundle]) as daemon, Client(daemon.target) as client:
        figures = {"ready_seconds": daemon.ready_seconds, "rss_ready_mb": rss_mb(daemon.pid)}
        model = client.models()[0]
        noise = np.random.default_rng(0).integers(0, 256, (PREDICTIONS, *model.inputs[0].shape[1:]), np.uint8)
        session = client.create_session(model.name)
        for sample in noise:
            session.predict(sample)
        figures["rss_mb"] = rss_mb(daemon.pid)
        adapt(client.create_session(model.name, recipe="tent"), noise)
        return figures | {"rss_adapted_mb": rss_mb(daemon.pid)}


def rss_mb(pid: int) -> float:
    """Resident memory of a process, in 10^6 bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kilobytes) * 1024 / 1e6


def adapt(session: Session, samples: NDArray[np.uint8]) -> None:
    """Feed a session until it has finished STEPS steps; tent learns from every sample, noise included.

    Raises:
        RuntimeError: it made no progress within PATIENCE_SECONDS.
    """
    give_up = time.monotonic() + PATIENCE_SECONDS
    while (view := session.get()).updates + view.rollbacks < STEPS:
        if time.monotonic() > give_up:
            raise RuntimeError(f"session {session.id}: {view.updates} updates in {PATIENCE_SECONDS:g} s")
        for sample in samples:
            session.predict(sample)


def installed_mb() -> float:
    """Install the package with its serving extra into an empty environment and add the files up."""
    with tempfile.TemporaryDirectory() as folder:
        # A copy, because building in place leaves files behind that a later build would pick up.
        tree = shutil.copytree(ROOT, f"{folder}/tree", ignore=shutil.ignore_patterns(".*", "build", "dist"))
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", f"{folder}/venv"], check=True)
        pip = [sys.executable, "-m", "pip", "--python", f"{folder}/venv/bin/python", "--quiet"]
        subprocess.run([*pip, "install", f"{tree}[cpu]"], check=True, stdout=sys.stderr)
        site = next(Path(folder, "venv", "lib").glob("python3*/site-packages"))
        return sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
