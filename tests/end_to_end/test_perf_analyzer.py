"""Triton's perf_analyzer, as it comes, against the daemon; skipped where it is not installed or does not run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from acclimate.runtime.client import Client
from benchmarks.perf_analyzer import LOADS, Load, measured, serving

REQUESTS = 200


@pytest.fixture(scope="module")
def binary() -> str:
    found = shutil.which("perf_analyzer")
    if found is None:
        pytest.skip("no perf_analyzer on the path; pip install perf-analyzer, where the C library is new enough for it")
    if subprocess.run([found, "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{found} does not run here")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("load", LOADS, ids=lambda load: str(load.name))
def test_it_drives_the_daemon_and_reads_its_statistics(binary: str, bundle_path: Path, load: Load) -> None:
    with serving(bundle_path, load.scheduling) as daemon:
        row = measured(binary, daemon.target, load, REQUESTS)
        assert float(row["per_s"]) > 0
        # From ModelStatistics: the engine took some time, and no more than the client waited.
        assert 0 < float(row["infer_us"]) < float(row["p99_us"])
        with Client(daemon.target) as client:
            assert client.server_info().models == ("digits",)
            assert list(client.list_sessions("digits")) == []
