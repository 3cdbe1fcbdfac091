from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtime.rpc.loopback import Loopback, serving


@pytest.fixture(scope="module")
def loopback() -> Iterator[Loopback]:
    """One server for a module; tests use session ids of their own."""
    with serving() as running:
        yield running
