"""A full disk, a torn log, a garbled database: real ones, under a real daemon or a real store."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from acclimate.runtime.client import Client, ClientError
from acclimate.runtime.store.base import Batch, Damaged, Key, StoreError, Write
from acclimate.runtime.store.sqlite import SqliteStore
from acclimate.runtime.wiring import store_tools
from tests.end_to_end.daemons import Daemon, running
from tests.looped import looped
from tests.polling import until, until_async
from tests.runtime.digits import picture
from tests.runtime.serving import config, drifted, opened, predict, serving, session_of
from tests.runtime.shaky import database, killed
from tests.runtime.test_codec import record
from tests.runtime.test_journal import journal_of, settled
from tests.runtime.test_persistence import ROWS, feed

PLENTY = {
    "ACCLIMATE_BUDGET__REFILL_MS_PER_S": "1e6",
    "ACCLIMATE_BUDGET__CAPACITY_MS": "1e9",
    "ACCLIMATE_BUDGET__PROCESS_REFILL_MS_PER_S": "1e6",
    "ACCLIMATE_BUDGET__PROCESS_CAPACITY_MS": "1e9",
}


@contextmanager
def daemon_on(bundle: Path, store: Path) -> Iterator[tuple[Daemon, Client]]:
    environment = PLENTY | {"ACCLIMATE_STORE__PATH": str(store)}
    with running(bundle, environment=environment) as daemon, Client(daemon.target) as client:
        yield daemon, client


def teach(client: Client, session: str, seeds: range) -> None:
    for seed in seeds:
        client.predict("digits", picture(seed, 4), parameters={"sequence_id": session})


def metric(daemon: Daemon, name: str) -> float:
    return daemon.metrics()[f"acclimate_store_{name}", ()]


def test_a_full_disk_stops_learning_and_nothing_else(bundle_path: Path, tmp_path: Path) -> None:
    with daemon_on(bundle_path, tmp_path / "sessions.db") as (daemon, client):
        client.create_session("digits", "cam", recipe="norm", recipe_parameters={"batch_rows": 4})
        teach(client, "cam", range(10))
        until(lambda: metric(daemon, "pending_commits") == 0, "all to be written")
        # No file of the daemon may grow any more, as on a disk that is full: SQLite's own error follows.
        soft = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        session = client.session("digits", "cam")
        for seed in range(10, 60):
            teach(client, "cam", range(seed, seed + 1))
        until(lambda: metric(daemon, "failing") == 1, "the store to fail")
        until(
            lambda: metric(daemon, "pending_commits") == 32 or metric(daemon, "oldest_pending_seconds") >= 1,
            "the bound",
        )
        assert 1 <= metric(daemon, "pending_commits") <= 32
        stopped = session.get().version
        for seed in range(60, 80):
            assert client.predict("digits", picture(seed), parameters={"sequence_id": "cam"}).version == stopped
        assert metric(daemon, "write_failures_total") >= 1
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, soft)
        until(lambda: metric(daemon, "failing") == 0, "the store to recover")
        until(lambda: session.get().version > stopped, "learning to go on")
        last = session.get().version
        assert daemon.stop(signal.SIGTERM) == 0
    assert store_tools.check(tmp_path / "sessions.db").sound
    with daemon_on(bundle_path, tmp_path / "sessions.db") as (_, client):
        assert client.session("digits", "cam").get().version >= last


def test_sqlite_says_that_it_is_full_and_is_as_it_was(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "sessions.db", max_pages=40)
    small, large = (record(fields={"theta": np.zeros(size, np.float32)}) for size in (10, 10**5))
    store.write(Batch(writes=[Write(small, 0)]))
    with pytest.raises(StoreError, match="full"):
        store.write(Batch(writes=[Write(large, 1)]))
    store.write(Batch(writes=[Write(small, 1)]))
    assert [found.record is not None for found in store.page(None, None, None, 9, 0.0)] == [True]
    store.close()


@looped
async def test_sqlite_that_is_full_is_recovered_from(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "sessions.db", max_pages=40)
    async with serving(
        config("background", store={"loss_commits": 4}, adaptation={"canary_every": 0}), store=store
    ) as service:
        await opened(service, "cam", "tent", batch_rows=ROWS)
        await feed(service, "cam", 4)
        await settled(service)
        number = 0
        while not journal_of(service).failing:
            number += 1
            await opened(service, f"more-{number}", "tent")
            await journal_of(service).settle([session_of(service, f"more-{number}").key])
        assert (await predict(service, drifted(0), "cam")).parameters["acclimate_version"] >= 4
        store._max_pages = 10_000
        assert service._parts.residency.keeping is not None
        await service._parts.residency.keeping.thread.call(store._drop)
        await until_async(lambda: not journal_of(service).failing, "the store to recover")
        await settled(service)
        assert store.count() == number + 1
        assert session_of(service, "cam").open


def written(folder: Path, names: range, size: int = 2000) -> list[Key]:
    """A store that was killed with these sessions in its log alone."""
    store = database(folder)
    keys = []
    for number in names:
        fields = {"theta": np.full(size, number, np.float32)}
        one = record(session_id=f"s{number:02}", version=number, fields=fields)
        store.write(Batch(writes=[Write(one, 0)]))
        keys.append(one.key)
    shutil.copytree(folder, folder.with_name("killed"))
    killed(store)
    shutil.rmtree(folder)
    shutil.move(folder.with_name("killed"), folder)
    return keys


def readable(folder: Path, keys: list[Key]) -> list[Key]:
    """Keys whose record is there and holds; a record that does not hold is told apart from one that is not there."""
    store, found = database(folder), []
    for key in keys:
        try:
            claimed = store.claim(key, 0.0, lambda one: one)
        except Damaged:
            continue
        if claimed is not None:
            np.testing.assert_array_equal(claimed[0].fields["theta"], float(claimed[0].version))
            found.append(key)
    store.close()
    return found


@pytest.mark.parametrize("cut", [0.0, 0.2, 0.5, 0.77, 0.999])
def test_a_torn_log_loses_its_end_and_nothing_before(tmp_path: Path, cut: float) -> None:
    folder = tmp_path / "store"
    keys = written(folder, range(20))
    log = folder / "sessions.db-wal"
    content = log.read_bytes()
    assert len(content) > 100_000, "the log holds what was written"
    log.write_bytes(content[: int(len(content) * cut)])
    (folder / "sessions.db-shm").unlink(missing_ok=True)
    if cut == 0.0:
        # What was in the log alone is gone, the tables too; an empty store is made anew.
        assert readable(folder, keys) == []
        return
    found = readable(folder, keys)
    assert found == keys[: len(found)], "a beginning of what was written, in order"
    assert len(found) >= int(20 * cut) - 3
    assert len(found) < 20


def test_garbage_in_the_log_ends_it(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    keys = written(folder, range(20))
    log = folder / "sessions.db-wal"
    content = bytearray(log.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = np.random.default_rng(0).bytes(64)
    log.write_bytes(content)
    (folder / "sessions.db-shm").unlink(missing_ok=True)
    found = readable(folder, keys)
    assert found == keys[: len(found)]
    assert 5 <= len(found) < 20


@pytest.mark.parametrize("seed", range(6))
def test_garbage_in_the_database_is_seen_and_spares_the_rest(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "store"
    keys = written(folder, range(20))
    with closing(sqlite3.connect(folder / "sessions.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = folder / "sessions.db"
    content = bytearray(path.read_bytes())
    generator = np.random.default_rng(seed)
    # Not the first page: without its header the file is no database, which is refused as a whole.
    for place in generator.integers(4096, len(content) - 16, 3):
        content[place : place + 16] = generator.bytes(16)
    path.write_bytes(content)
    found = readable(folder, keys)
    assert 20 - 6 <= len(found) < 20 or not store_tools.check(path).sound
    assert set(found) <= set(keys)


def test_a_damaged_session_is_data_loss_to_its_client_and_to_no_other(bundle_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with daemon_on(bundle_path, path) as (daemon, client):
        for name in ("good", "bad"):
            client.create_session("digits", name, recipe="norm", recipe_parameters={"batch_rows": 4})
            teach(client, name, range(5))
            until(partial(lambda held: held.get().updates == 5, client.session("digits", name)), "five steps")
        assert daemon.stop() == 0
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE sessions SET record = CAST(substr(record, 1, 500) || x'ffffff' || substr(record, 504) AS BLOB) "
            "WHERE id = 'bad'"
        )
    with daemon_on(bundle_path, path) as (daemon, client):
        with pytest.raises(ClientError, match="checksum") as refused:
            client.session("digits", "bad").get()
        assert (refused.value.code, refused.value.reason) == ("DATA_LOSS", "SESSION_DAMAGED")
        assert client.session("digits", "good").get().updates == 5
        assert metric(daemon, "damaged_total") == 1
        teach(client, "good", range(5))
