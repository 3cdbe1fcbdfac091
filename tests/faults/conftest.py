from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.daemons import Daemon, running
from tests.runtime.shelves import placed


@pytest.fixture
def shelf(bundle_path: Path, tmp_path: Path) -> Path:
    """A repository that holds version 1 of the digits."""
    folder = tmp_path / "models"
    folder.mkdir()
    placed(bundle_path, folder / "digits")
    return folder


@pytest.fixture
def daemon(shelf: Path) -> Iterator[Daemon]:
    """A daemon that serves it and lets clients change models."""
    environment = {"ACCLIMATE_REPOSITORY__REMOTE_CONTROL": "true"}
    with running(repository=shelf, synchronous=True, environment=environment) as up:
        yield up
