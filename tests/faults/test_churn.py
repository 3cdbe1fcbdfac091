"""Ten thousand sessions through a memory that holds 256, over gRPC and a SQLite file: none is lost or mixed up."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from acclimate.runtime.client import AsyncClient
from acclimate.runtime.config import Config
from acclimate.runtime.store import tools
from acclimate.runtime.types import SessionView
from tests.runtime.rpc.loopback import MODEL, Loopback, samples, serving
from tests.runtime.serving import PLENTY_FOR_ALL

SESSIONS, PLACES, KINDS, ROWS = 10_000, 256, 20, 4
TOGETHER = 32


def settings(path: Path) -> Config:
    """Steps in synchronous mode, so that equal streams lead to equal bits."""
    return Config(
        server={"grpc_port": 0, "http_port": 0},
        scheduler={"mode": "synchronous"},
        sessions={"max_sessions": PLACES},
        store={"path": str(path), "synchronous": "normal", "parked_bytes": 2**16},
        budget=PLENTY_FOR_ALL,
    )


def kind_of(number: int) -> int:
    """Which stream a session sees; neighbours see others."""
    return (number * 7) % KINDS


def turns_of(number: int) -> int:
    """How often a session learns: every tenth goes on with what it had learnt before it was away."""
    return 2 if number % 10 == 0 else 1


async def each(numbers: list[int], work: Callable[[int], Awaitable[Any]]) -> None:
    """Work of every number, `TOGETHER` under way at a time."""
    waiting = iter(numbers)

    async def one() -> None:
        for number in waiting:
            await work(number)

    await asyncio.gather(*(one() for _ in range(TOGETHER)))


async def listed(client: AsyncClient, text: str = "") -> list[SessionView]:
    return [view async for view in client.list_sessions(MODEL, filter=text, page_size=1000)]


async def churn(client: AsyncClient) -> None:
    """Open every session and let it learn, a turn each in another order."""

    async def open_one(number: int) -> None:
        options: dict[str, Any] = {"recipe": "tent", "recipe_parameters": {"batch_rows": ROWS, "lr": 0.01}}
        await client.create_session(MODEL, f"s{number}", labels={"kind": str(kind_of(number))}, **options)

    await each(list(range(SESSIONS)), open_one)
    for turn in range(2):
        order = [number for number in range(SESSIONS) if turns_of(number) > turn]
        Random(turn).shuffle(order)  # noqa: S311 - an order, no secret

        async def feed(number: int, turn: int = turn) -> None:
            inputs = samples(ROWS, 1000 * turn + kind_of(number)) * 1.7 + 0.5
            answer = await client.predict(MODEL, inputs, parameters={"sequence_id": f"s{number}"})
            assert (answer.parameters["acclimate_session"], answer.version) == (f"s{number}", turn)

        await each(order, feed)


async def verified(client: AsyncClient) -> dict[int, set[str]]:
    """What the sessions of each kind have learnt, by digest; every session is asked."""
    seen: dict[int, set[str]] = {kind: set() for kind in range(KINDS)}

    async def look(number: int) -> None:
        learnt = await client.export_session(MODEL, f"s{number}")
        assert (learnt.session_id, learnt.version) == (f"s{number}", turns_of(number))
        values = b"".join(tensor.values.tobytes() for tensor in (*learnt.parameters, *learnt.statistics))
        seen[kind_of(number)].add(hashlib.blake2b(values).hexdigest())

    await each(list(range(SESSIONS)), look)
    return seen


def bounded(up: Loopback) -> None:
    """Memory holds as many sessions as it may, and nothing of the others."""
    parts = up.service._parts  # type: ignore[attr-defined]
    cohorts = parts.table._cohorts.values()
    assert len(parts.table) <= PLACES
    assert sum(cohort.bank.live for cohort in cohorts) == len(parts.table)
    assert sum(len(cohort.bank._free) for cohort in cohorts) + len(parts.table) <= 4 * PLACES
    assert parts.residency.parking.nbytes <= 2**16
    assert len(parts.residency._used) == len(parts.table)
    assert not parts.residency._returning
    assert len(parts.residency.journal._epochs) <= PLACES
    gc.collect()
    assert sum(type(thing).__name__ == "Session" for thing in gc.get_objects()) <= 2 * PLACES


async def _first(up: Loopback, path: Path) -> dict[int, set[str]]:
    async with AsyncClient(up.target, timeout_seconds=120.0) as client:
        await churn(client)
        bounded(up)
        figures = up.service.snapshot().store
        assert figures.evictions >= 1.9 * (SESSIONS - PLACES)
        assert figures.failures == figures.fenced == figures.damaged == 0
        assert figures.sessions == SESSIONS
        seen = await verified(client)
        bounded(up)
    return seen


async def _second(up: Loopback, seen: dict[int, set[str]], path: Path) -> None:
    async with AsyncClient(up.target, timeout_seconds=120.0) as client:
        views = await listed(client)
        assert Counter(view.session_id for view in views) == Counter(f"s{n}" for n in range(SESSIONS))
        for view in views:
            turns = turns_of(int(view.session_id[1:]))
            assert (view.samples, view.requests, view.updates, view.version) == (turns * ROWS, turns, turns, turns)
        assert all(int(view.labels["kind"]) == kind_of(int(view.session_id[1:])) for view in views)
        assert len(await listed(client, 'labels.kind = "3" AND state = ADAPTED')) == SESSIONS // KINDS
        some = list(range(0, SESSIONS, 97))

        async def look(number: int) -> None:
            learnt = await client.export_session(MODEL, f"s{number}")
            values = b"".join(tensor.values.tobytes() for tensor in (*learnt.parameters, *learnt.statistics))
            assert {hashlib.blake2b(values).hexdigest()} == seen[kind_of(number)]

        await each(some, look)
        size = path.stat().st_size
        # What is deleted makes room in the file for what comes.
        await each(list(range(SESSIONS // 2)), lambda number: client.delete_session(MODEL, f"s{number}"))
        await each(
            list(range(SESSIONS // 2)),
            lambda number: client.create_session(MODEL, f"t{number}", recipe="tent", recipe_parameters={"lr": 0.01}),
        )
        assert len(await listed(client)) == SESSIONS
        assert path.stat().st_size <= 1.1 * size
        bounded(up)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_sessions_through_256_places(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with serving(settings(path)) as up:
        seen = asyncio.run(_first(up, path))
    # Sessions that saw the same stream have learnt the same to the bit, whoever stood between two of their turns.
    assert all(len(digests) == 1 for digests in seen.values())
    assert len(set.union(*seen.values())) == KINDS
    checked = tools.check(path)
    assert (checked.sound, len(checked.records)) == (True, SESSIONS)
    largest = max(found.bytes for found, _ in checked.records)
    assert path.stat().st_size <= 3 * SESSIONS * max(largest, 4096)
    with serving(settings(path)) as up:
        asyncio.run(_second(up, seen, path))
