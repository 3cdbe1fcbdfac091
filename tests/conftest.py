"""What every test runs under: strict floats, a deterministic hypothesis, and where the inputs lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

# The machine's load must not decide whether a test passes, hence no deadline and no "too slow" check.
settings.register_profile("ci", deadline=None, max_examples=40, derandomize=True, print_blob=True)
settings.register_profile(
    "laptop", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("thorough", deadline=None, max_examples=1000, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if CI else "laptop"))


@pytest.fixture(autouse=True)
def strict_floats() -> Iterator[None]:
    """Overflow, division by zero and invalid operations in NumPy raise; underflow to zero is harmless."""
    with np.errstate(over="raise", divide="raise", invalid="raise", under="ignore"):
        yield


@pytest.fixture(scope="session")
def bundle_path() -> Path:
    """The committed digits bundle; its absence skips on a laptop and fails in continuous integration."""
    path = ROOT / "examples" / "digits" / "bundle"
    if not (path / "manifest.json").is_file():
        reason = "no examples/digits/bundle; make one with `python -m acclimate.examples.digits.train`"
        pytest.fail(reason) if CI else pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of benchmark data: $ACCLIMATE_DATA, or `shared/data` beside the repository."""
    named = os.environ.get("ACCLIMATE_DATA")
    path = Path(named) if named else ROOT.parent / "shared" / "data"
    if not path.is_dir():
        reason = f"no benchmark data at {path}; set ACCLIMATE_DATA to where it lies"
        pytest.fail(reason) if named else pytest.skip(reason)
    return path
