"""Two daemons on one store: a session is one's or the other's, and never both."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from acclimate.runtime.errors import Aborted, NotFound
from acclimate.runtime.service import Service
from acclimate.runtime.store.base import Store
from acclimate.runtime.store.owners import Owners
from acclimate.runtime.types import EventKind
from tests.looped import looped
from tests.polling import until_async
from tests.runtime.serving import MODEL, config, drifted, opened, predict, serving, session_of
from tests.runtime.shaky import Shaky, database, killed
from tests.runtime.test_journal import journal_of, settled
from tests.runtime.test_persistence import ROWS, feed


@asynccontextmanager
async def daemons(folder: Path, take_over: bool = False) -> AsyncIterator[tuple[Service, Service, Store]]:
    """Two services on one store, and the first one's store."""
    first = Shaky(database(folder))
    settings = config("synchronous", store={"take_over": take_over})
    async with serving(config(), store=first) as one, serving(settings, store=database(folder)) as two:
        await opened(one, "cam", "tent", batch_rows=ROWS)
        await feed(one, "cam", 3)
        await settled(one)
        yield one, two, first


@looped
async def test_a_session_of_a_daemon_that_is_alive_is_refused_by_its_name(tmp_path: Path) -> None:
    async with daemons(tmp_path) as (one, two, store):
        for attempt in (
            two.get_session(MODEL, "cam"),
            two.delete_session(MODEL, "cam"),
            predict(two, drifted(0), "cam"),
        ):
            with pytest.raises(Aborted, match=store.owner) as refused:
                await attempt
            assert refused.value.reason == "SESSION_OWNED_ELSEWHERE"
        await feed(one, "cam", 1, seed=9)
        await settled(one)
        assert [view.version for view in (await two.list_sessions(None, 0, "")).sessions] == [4], "but it can be seen"
        assert session_of(one, "cam").version == 4


@looped
async def test_what_one_daemon_lets_go_of_the_other_may_have(tmp_path: Path) -> None:
    async with daemons(tmp_path) as (one, two, _):
        await one._parts.residency.leave([session_of(one, "cam")])
        assert len(one._parts.table) == 0
        await settled(one)
        await until_async(lambda: not journal_of(one)._waiting.released, "the session to be let go of")
        await until_async(lambda: not journal_of(one)._flying.released, "the session to be let go of")
        assert (await two.get_session(MODEL, "cam")).version == 3
        with pytest.raises(Aborted):
            await one.get_session(MODEL, "cam")


@looped
async def test_a_daemon_that_was_taken_over_notices_drops_its_copy_and_writes_no_more(tmp_path: Path) -> None:
    async with daemons(tmp_path, take_over=True) as (one, two, _):
        events = one.watch(MODEL, "cam")
        assert (await two.get_session(MODEL, "cam")).version == 3
        await feed(two, "cam", 5, seed=30)
        await settled(two)
        mine = session_of(two, "cam")
        await feed(one, "cam", 1, seed=60)
        await until_async(lambda: one.snapshot().store.fenced == 1, "the first to notice")
        kinds = [await anext(events) for _ in range(2)]
        assert [event.kind for event in kinds] == [EventKind.APPLIED, EventKind.FENCED]
        assert len(one._parts.table) == 0
        with pytest.raises(Aborted):
            await one.get_session(MODEL, "cam")
        assert mine.open
        assert mine.version == 8
        (stored,) = database(tmp_path).page(None, None, None, 9, 0.0)
        assert stored.record is not None
        assert (stored.record.version, stored.record.account["updates"]) == (8, 8), "the story of the second, unbroken"


@looped
async def test_two_daemons_that_open_one_name_are_told_apart_at_the_first_write(tmp_path: Path) -> None:
    first, second = Shaky(database(tmp_path)), Shaky(database(tmp_path))
    async with serving(config(), store=first) as one, serving(config(), store=second) as two:
        first.door.clear()
        second.door.clear()
        for service in (one, two):
            await opened(service, "cam", "tent")
        first.door.set()
        await settled(one)
        second.door.set()
        await until_async(lambda: two.snapshot().store.fenced == 1, "the second to notice")
        assert session_of(one, "cam").open
        with pytest.raises(Aborted):
            await two.get_session(MODEL, "cam")


@looped
async def test_a_daemon_that_died_leaves_its_sessions_to_the_next(tmp_path: Path) -> None:
    store = database(tmp_path)
    async with serving(config(), store=store) as one:
        await opened(one, "cam", "tent", batch_rows=ROWS)
        await feed(one, "cam", 3)
        await settled(one)
        killed(store)
        async with serving(config(), store=database(tmp_path)) as two:
            assert (await two.get_session(MODEL, "cam")).version == 3
            with pytest.raises(NotFound):
                await two.get_session(MODEL, "other")


HOLD = """
import sys
from pathlib import Path
from acclimate.runtime.store.owners import Owners
print(Owners(Path(sys.argv[1])).name, flush=True)
sys.stdin.read()
"""


def test_a_process_that_is_killed_is_dead_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        here = Owners(tmp_path)
        assert name.split("-")[-2] == str(process.pid)
        assert here.alive(name)
        assert here.alive(here.name)
        process.kill()
        process.wait()
    assert not here.alive(name)
    assert not (tmp_path / f"{name}.lock").exists()
    assert not here.alive("nobody-1-0")
    here.close()
    assert list(tmp_path.iterdir()) == []


def test_what_the_store_makes_is_its_owners_alone(tmp_path: Path) -> None:
    store = database(tmp_path)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    store.close()
    assert modes.pop("sessions.db.owners") == "0o700"
    assert set(modes.values()) == {"0o600"}, json.dumps(modes)
    assert list((tmp_path / "sessions.db.owners").iterdir()) == []


def test_asking_at_once_is_not_owning(tmp_path: Path) -> None:
    one, two, dead = Owners(tmp_path), Owners(tmp_path), Owners(tmp_path)
    name = dead.name
    os.close(dead._file)  # type: ignore[arg-type]
    dead._file = None
    path = tmp_path / f"{name}.lock"
    assert path.exists()
    assert one.alive(two.name), "who comes later clears nobody away who is alive"

    async def ask() -> list[bool]:
        return await asyncio.gather(*(asyncio.to_thread(own.alive, name) for own in (one, two) * 20))

    assert not any(asyncio.run(ask()))
