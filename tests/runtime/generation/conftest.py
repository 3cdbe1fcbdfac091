"""A daemon that serves the small language model, once for each module, and a client of it."""

from collections.abc import Iterator

import pytest

from acclimate.runtime.client import Client
from tests.runtime.generation.writers import writing
from tests.runtime.rpc.loopback import Loopback


@pytest.fixture(scope="module")
def running() -> Iterator[Loopback]:
    with writing() as up:
        yield up


@pytest.fixture
def client(running: Loopback) -> Iterator[Client]:
    with Client(running.target) as opened:
        yield opened
