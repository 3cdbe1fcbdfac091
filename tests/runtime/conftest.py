from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions


@pytest.fixture(scope="session")
def digits_engine(bundle_path: Path) -> Iterator[OnnxEngine]:
    """The committed bundle on ONNX Runtime."""
    engine = OnnxEngine(read_bundle(bundle_path), OnnxOptions())
    yield engine
    engine.close()
