"""A disk that is slow, or fails for a while: predictions go on, and what may be lost stays within the bound."""

from __future__ import annotations

import asyncio
from pathlib import Path

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.service import Service
from tests.looped import looped
from tests.polling import until_async
from tests.runtime.serving import MODEL, drifted, opened, predict, serving, session_of
from tests.runtime.shaky import Shaky, database
from tests.runtime.test_journal import journal_of, only, settings, settled
from tests.runtime.test_persistence import ROWS, feed


async def wait_for_version(service: Service, session: str, version: int) -> None:
    await until_async(lambda: session_of(service, session).version >= version, f"version {version}")


async def stuck(service: Service, session: str) -> int:
    """Feed a session until it has a step that waits for the store; returns its version then."""
    for seed in range(40):
        await predict(service, drifted(seed, ROWS), session)
        await asyncio.sleep(0)
    held = session_of(service, session)
    await until_async(lambda: held.stepping and journal_of(service)._full(1), "a step that waits for the store")
    return held.version


@looped
async def test_a_slow_disk_stops_learning_at_the_bound_and_predictions_never(tmp_path: Path) -> None:
    store = Shaky(database(tmp_path))
    async with serving(settings(), store=store) as service:
        await opened(service, "cam", "tent", batch_rows=ROWS)
        await settled(service)
        store.door.clear()
        version = await stuck(service, "cam")
        assert journal_of(service).commits == version == 4, "as many as may be lost, and not one more"
        for seed in range(50):
            assert (await predict(service, drifted(seed), "cam")).parameters["acclimate_version"] == 4
        assert not journal_of(service).failing
        store.door.set()
        await wait_for_version(service, "cam", 6)


@looped
async def test_time_alone_stops_learning_too(tmp_path: Path) -> None:
    clock = ManualClock(100.0)
    store = Shaky(database(tmp_path))
    async with serving(settings(loss_commits=1000, loss_seconds=5.0), store=store, clock=clock) as service:
        await opened(service, "cam", "norm", batch_rows=ROWS)
        await feed(service, "cam", 3)
        await wait_for_version(service, "cam", 3)
        assert journal_of(service).commits == 4
        store.door.clear()
        clock.advance(5.0)
        assert journal_of(service).age == 5.0
        assert await stuck(service, "cam") == 3
        store.door.set()
        await wait_for_version(service, "cam", 4)


@looped
async def test_a_store_that_fails_pauses_learning_and_learning_goes_on_when_it_recovers(tmp_path: Path) -> None:
    store = Shaky(database(tmp_path))
    async with serving(settings(), store=store) as service:
        await opened(service, "cam", "tent", batch_rows=ROWS)
        await settled(service)
        store.broken = True
        version = await stuck(service, "cam")
        figures = service.snapshot().store
        assert figures.failing
        assert figures.failures >= 1
        assert figures.pending_commits == version == 4
        assert (await predict(service, drifted(0), "cam")).parameters["acclimate_version"] == 4
        assert (await service.get_session(MODEL, "cam")).version == 4
        store.broken = False
        await wait_for_version(service, "cam", 7)
        await settled(service)
        assert not service.snapshot().store.failing
    assert only(database(tmp_path)).version >= 7
