from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from acclimate.runtime import logs
from acclimate.runtime.config import Logging
from tests.runtime.rpc.loopback import Loopback, serving


@pytest.fixture(scope="module")
def loopback() -> Iterator[Loopback]:
    """One server for a module; tests use session ids of their own."""
    with serving() as running:
        yield running


@pytest.fixture
def json_logs() -> Iterator[io.StringIO]:
    """What the daemon logs, one JSON object a line; logging is as it was before when the test ends."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure(Logging(level="debug", format="json"), stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
