from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.runtime.client import Client
from benchmarks._rpcs import LANGUAGE
from tests.end_to_end.daemons import Daemon, running


@pytest.fixture(scope="module")
def daemon(bundle_path: Path) -> Iterator[Daemon]:
    """One daemon for a module, in synchronous mode so that a reply means that the session has learnt from it."""
    with running(
        bundle_path,
        synchronous=True,
        language_model=LANGUAGE,
        environment={"ACCLIMATE_SERVER__MAX_MESSAGE_BYTES": "262144"},
    ) as up:
        yield up


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.target) as connected:
        yield connected
