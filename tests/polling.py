"""The one place where a test waits: until a condition holds, or a deadline that means "broken" has passed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PAUSE_SECONDS = 0.01
PATIENCE_SECONDS = 60.0


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE_SECONDS) -> None:
    """Return once `condition()` is true; AssertionError naming `what` after `patience` seconds."""
    give_up = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < give_up, f"waited {patience:g} s for {what}"
        time.sleep(PAUSE_SECONDS)


async def until_async(condition: Callable[[], object], what: str, patience: float = PATIENCE_SECONDS) -> None:
    """`until`, for a test that shares its event loop with what it waits for."""
    give_up = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < give_up, f"waited {patience:g} s for {what}"
        await asyncio.sleep(PAUSE_SECONDS)
