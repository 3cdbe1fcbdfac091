from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 64 channels and two layers."""
    from tests.runtime.engines.tiny import make_model

    return make_model(tmp_path_factory.mktemp("models") / "tiny")
