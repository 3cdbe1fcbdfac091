"""Clocks that jump, and more sessions than memory has room for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from acclimate.runtime.errors import NotFound
from acclimate.runtime.sessions import shelving
from acclimate.runtime.types import CreateSession
from tests.looped import looped
from tests.runtime.serving import MODEL, config, drifted, opened, predict, serving, session_of
from tests.runtime.shaky import database
from tests.runtime.test_journal import journal_of
from tests.runtime.test_persistence import ROWS, feed


@dataclass
class TwoClocks:
    """A monotonic clock, and a wall clock that somebody sets."""

    steady: float = 500.0
    jump: float = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.steady

    def wall(self) -> float:
        return self.steady + self.jump


YEAR = 365 * 86400.0


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
@looped
async def test_a_wall_clock_that_jumps_ends_no_session_and_stops_no_write(tmp_path: Path, jump: float) -> None:
    clock = TwoClocks()
    settings = config(sessions={"default_ttl_seconds": 3600.0}, store={"idle_seconds": 60.0})
    async with serving(settings, store=database(tmp_path), clock=clock) as service:
        await opened(service, "live", "tent", batch_rows=ROWS)
        await opened(service, "away", "tent", batch_rows=ROWS)
        await feed(service, "away", 3)
        clock.steady += 61.0
        await predict(service, drifted(0), "live")
        await shelving.sweep(service._parts.residency)
        assert [session.id for session in service._parts.table] == ["live"]
        clock.jump += jump
        await shelving.sweep(service._parts.residency)
        assert [session.id for session in service._parts.table] == ["live"]
        view = await service.get_session(MODEL, "away")
        assert view.updates == 3
        assert view.budget_available_ms > 0
        await feed(service, "away", 2, seed=40)
        assert await journal_of(service).settle([session_of(service, "away").key])
        assert journal_of(service).age == 0.0
        clock.steady += 3700.0
        await shelving.sweep(service._parts.residency)
        for name in ("live", "away"):
            with pytest.raises(NotFound):
                await service.get_session(MODEL, name)


@looped
async def test_a_wall_clock_that_was_set_back_before_a_restart_ends_nothing_and_grants_nothing(tmp_path: Path) -> None:
    clock = TwoClocks()
    budget = {"refill_ms_per_s": 10.0, "capacity_ms": 1000.0}
    settings = config("background", sessions={"default_ttl_seconds": 3600.0}, budget=budget)
    async with serving(settings, store=database(tmp_path), clock=clock) as service:
        await opened(service, "cam", "tent", batch_rows=ROWS)
        service._parts.learner._pay(session_of(service, "cam"), 900.0)
    back = TwoClocks(steady=3.0, jump=clock.jump - YEAR)
    async with serving(settings, store=database(tmp_path), clock=back) as service:
        assert (await service.get_session(MODEL, "cam")).budget_available_ms == pytest.approx(100.0)


@looped
async def test_many_sessions_pass_through_little_memory(tmp_path: Path) -> None:
    """400 sessions, 16 in memory, asked for at random and in part at once: none is lost, none is mixed up."""
    settings = config("background", sessions={"max_sessions": 16}, store={"parked_bytes": 10_000})
    async with serving(settings, store=database(tmp_path)) as service:
        for number in range(400):
            await service.create_session(CreateSession(MODEL, f"s{number}", "source"))
        order = [(7 * turn * turn + 13 * turn) % 400 for turn in range(800)]
        for start in range(0, len(order), 8):
            names = [f"s{number}" for number in order[start : start + 8]]
            await asyncio.gather(*(predict(service, drifted(start), name) for name in names))
        counted: dict[str, int] = {}
        token = ""
        while True:
            page = await service.list_sessions(MODEL, 100, token)
            counted |= {view.session_id: view.samples for view in page.sessions}
            token = page.next_page_token
            if not token:
                break
        assert counted == {f"s{number}": order.count(number) for number in range(400)}
        assert len(service._parts.table) <= 16
        assert service._parts.residency.parking.nbytes <= 10_000
        figures = service.snapshot().store
        assert figures.evictions >= 400 - 16
        assert figures.failures == figures.fenced == figures.damaged == 0
        cohorts = service._parts.table._cohorts
        assert sum(cohort.bank.live for cohort in cohorts.values()) == len(service._parts.table)
        for number in range(0, 400, 2):
            await service.delete_session(MODEL, f"s{number}")
        assert service._parts.residency.keeping is not None
        assert service._parts.residency.keeping.store.count() == 200
