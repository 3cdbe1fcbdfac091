"""Figures over live sessions: what the arrays say is what walking all sessions says, whatever happened before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adapters.accuracy import Telemetry
from acclimate.runtime.lifecycle_types import ForkSession
from acclimate.runtime.service import Service
from acclimate.runtime.sessions import census as module
from acclimate.runtime.sessions.census import Census
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.store.sqlite import SqliteStore
from acclimate.runtime.types import ModelSnapshot
from tests.runtime.serving import MODEL, config, drifted, opened, predict, serving, session_of


def walked(service: Service) -> dict[str, object]:
    """The figures as they were computed before there was a census."""
    live = [session for session in service._parts.table if session.model == MODEL]
    drift = [session.drift for session in live] or [(0.0,) * 5]
    return {
        "sessions": {state.value: sum(s.state is state for s in live) for state in module.LIVE},
        "buffered": sum(len(session.buffer) for session in live),
        "state_bytes": sum(session.state_bytes for session in live),
        "snapshots": sum(len(session.snapshots) for session in live),
        "snapshot_bytes": sum(held.nbytes for session in live for held in session.snapshots.values()),
        "theta_distance_max": max((session.distance for session in live), default=0.0),
        "drift_max": np.max(drift, axis=0).tolist(),
        "drift_mean": pytest.approx(np.mean(drift, axis=0).tolist()),
    }


def counted(service: Service) -> dict[str, Any]:
    model: ModelSnapshot = service.snapshot().models[0]
    names = ("sessions", "buffered", "state_bytes", "snapshots", "snapshot_bytes", "theta_distance_max")
    return {name: getattr(model, name) for name in names} | {
        "drift_max": list(model.drift_max.values()), "drift_mean": list(model.drift_mean.values())
    }  # fmt: skip


def test_every_way_in_which_a_session_changes_is_seen(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = config(store={"path": str(tmp_path / "s.db")}, sessions={"max_sessions": 4})
        async with serving(settings, store=SqliteStore(tmp_path / "s.db", "normal")) as service:

            async def same(what: str) -> None:
                assert counted(service) == walked(service), what

            await same("empty")
            for name in "abc":
                await opened(service, name, "tent")
            await same("opened")
            for turn in range(9):
                await predict(service, drifted(turn, 7), "a")
            await same("adapted, and some samples wait")
            assert counted(service)["sessions"]["adapted"] == 1
            assert counted(service)["buffered"] > 0
            await service.lifecycle.pause(MODEL, "a", "")
            await same("paused")
            await service.lifecycle.take_snapshot(MODEL, "a", "kept")
            await same("snapshot taken")
            await service.lifecycle.fork(ForkSession(MODEL, "a", "twin"))
            await same("forked")
            await opened(service, "d", "tent")
            await opened(service, "e", "tent")
            await same("others made room")
            assert sum(counted(service)["sessions"].values()) == 4
            await service.list_sessions(MODEL, 0, "")
            await same("stored ones were looked at")
            await service.get_session(MODEL, "a")
            await same("returned")
            await service.reset_session(MODEL, "a")
            await same("reset")
            await service.delete_session(MODEL, "a")
            await same("deleted")

    asyncio.run(scenario())


def census_of(sessions: dict[tuple[str, str, str], Session], top: int = 2) -> Census:
    made = Census(sessions.get, top)
    for key in sessions:
        made.changed(key)
    return made


async def some(service: Service, count: int) -> dict[tuple[str, str, str], Session]:
    for number in range(count):
        await opened(service, f"s{number}", "tent")
    return {session.key: session for session in (session_of(service, f"s{n}") for n in range(count))}


def test_the_worst_are_named_by_each_ranking() -> None:
    async def scenario() -> None:
        async with serving() as service:
            sessions = await some(service, 8)
            drifting, falling, undone, calm = list(sessions.values())[:4]
            drifting.drift = (0.1, 0.0, 3.0, 0.0, 0.0)
            falling.account.samples, falling.telemetry = 10, telemetry(0.2)
            calm.account.samples, calm.telemetry = 10, telemetry(1.0)
            undone.account.rollbacks["canary"] = 3
            listed = census_of(sessions).of(MODEL).listed
            assert [one.session_id for one in listed] == [drifting.id, falling.id, undone.id]
            assert listed[0].drift["statistics"] == 3.0
            assert [one.estimated_accuracy for one in listed] == [None, 0.2, None]
            assert listed[2].rollbacks == 3
            assert census_of(sessions, top=0).of(MODEL).listed == ()

    asyncio.run(scenario())


def telemetry(above: float) -> Telemetry:
    return Telemetry(above=above, weight=10.0)


def test_two_that_take_turns_on_the_last_place_do_not_begin_a_series_each_time() -> None:
    async def scenario() -> None:
        async with serving() as service:
            sessions = await some(service, 12)
            census, named = census_of(sessions), set()
            generator = np.random.default_rng(0)
            first = list(sessions.values())[:3]
            for _ in range(50):
                for session in first:
                    session.account.rollbacks["canary"] += int(generator.integers(1, 5))
                    census.changed(session.key)
                named |= {one.session_id for one in census.of(MODEL).listed}
            assert len(named) == 2
            worse = list(sessions.values())[5:9]
            for session in worse:
                session.account.rollbacks["canary"] = 10_000
                census.changed(session.key)
            assert {one.session_id for one in census.of(MODEL).listed} <= {session.id for session in worse}

    asyncio.run(scenario())


def test_what_nobody_reads_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANY", 100)
    census = Census({}.get)
    for number in range(1000):
        census.changed(("", MODEL, str(number)))
    assert len(census._named) < 100
