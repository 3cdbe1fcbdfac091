"""The SQLite store as a file: formats old and foreign, damage, and the commands that look after it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from acclimate.adapters.manifest import Manifest
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.store.base import Batch, Damaged, SessionRecord, StoreError, Usage, Write, describe
from acclimate.runtime.store.codec import decode, encode
from acclimate.runtime.store.schema import APPLICATION, VERSION
from acclimate.runtime.store.sqlite import SqliteStore
from tests.runtime.shaky import database
from tests.runtime.test_cli import failure, run
from tests.runtime.test_codec import record, same

BAD_STORE = 6

# Format 1, as the first version of the store wrote it.
FORMAT_1 = f"""
CREATE TABLE sessions (model TEXT NOT NULL, id TEXT NOT NULL, record BLOB NOT NULL, PRIMARY KEY (model, id));
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = 1;
"""


def sqlite(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


@pytest.fixture
def manifest() -> Manifest:
    return reference_engine().manifest


@pytest.fixture
def path(tmp_path: Path, manifest: Manifest) -> Iterator[Path]:
    """A store with three sessions of the reference model."""
    store = database(tmp_path)
    batch = Batch(bundles={manifest.digest: describe(manifest)})
    writes = [Write(learnt(manifest, name), 0) for name in ("a", "b", "c")]
    store.write(replace(batch, writes=writes))
    store.close()
    yield store.path


def learnt(manifest: Manifest, name: str) -> SessionRecord:
    generator = np.random.default_rng(sum(name.encode()))
    rows = {"theta": manifest.parameters.size, "stats": manifest.statistics.size}
    fields = {key: generator.normal(size=size).astype(np.float32) for key, size in rows.items()}
    return record(model=manifest.name, session_id=name, bundle=manifest.digest, fields=fields)


def spoil(path: Path, name: str) -> None:
    with closing(sqlite(path)) as connection:
        connection.execute(
            "UPDATE sessions SET record = CAST(substr(record, 1, 100) || x'ff00ff' || substr(record, 104) AS BLOB) "
            "WHERE id = ?",
            (name,),
        )


def test_an_older_format_is_migrated_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    old = {"kept": record(session_id="kept"), "ends": record(session_id="ends", ttl_seconds=60.0)}
    with closing(sqlite(path)) as connection:
        connection.executescript(FORMAT_1)
        for name, one in old.items():
            connection.execute("INSERT INTO sessions VALUES ('digits', ?, ?)", (name, encode(one)))
        connection.execute("INSERT INTO sessions VALUES ('digits', 'spoilt', x'00')")
    store = database(tmp_path)
    for name, one in old.items():
        claimed = store.claim(("", "digits", name), 0.0, lambda found: found)
        assert claimed is not None
        same(claimed[0], one)
        assert claimed[1] == 2
    with pytest.raises(Damaged):
        store.claim(("", "digits", "spoilt"), 0.0, lambda found: found)
    assert store.claim(("", "digits", "ends"), old["ends"].last_used_at + 60.0, lambda found: found) is None
    store.close()
    with closing(sqlite(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables - {"sqlite_sequence"} == {"sessions", "bundles", "snapshots", "replies"}
    assert database(tmp_path).count() == 3, "and is not migrated again"


# Format 2: no sizes, and snapshots within records.
FORMAT_2 = f"""
CREATE TABLE sessions (
    tenant TEXT NOT NULL DEFAULT '', model TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL DEFAULT '',
    epoch INTEGER NOT NULL DEFAULT 1, expires_at REAL, record BLOB NOT NULL, PRIMARY KEY (tenant, model, id)
);
CREATE INDEX sessions_expire ON sessions (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE bundles (digest TEXT PRIMARY KEY, description TEXT NOT NULL);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = 2;
"""


def test_snapshots_of_an_older_format_get_rows_of_their_own(tmp_path: Path) -> None:
    path, insert = (
        tmp_path / "sessions.db",
        "INSERT INTO sessions (tenant, model, id, record) VALUES ('t', 'digits', ?, ?)",
    )
    held = record(tenant="t", session_id="held", snapshots={"s": record(tenant="t", session_id="held", version=3)})
    plain = record(tenant="t", session_id="plain")
    with closing(sqlite(path)) as connection:
        connection.executescript(FORMAT_2)
        for one in (held, plain):
            connection.execute(insert, (one.session_id, encode(one)))
        connection.execute(insert, ("spoilt", b"no record"))
    store = database(tmp_path)
    assert store.usage() == {"t": Usage(3, held.state_bytes + plain.state_bytes + len(b"no record"))}
    with pytest.raises(Damaged):
        store.claim(("t", "digits", "spoilt"), 0.0, lambda found: found)
    for one in (held, plain):
        claimed = store.claim(one.key, 0.0, lambda found: found)
        assert claimed is not None
        same(claimed[0], one)
        store.write(Batch(writes=[Write(replace(claimed[0], version=99), claimed[1])]))
    store.close()
    with closing(sqlite(path)) as connection:
        assert connection.execute("SELECT session, id FROM snapshots").fetchall() == [("held", "s")]
        ((content,),) = connection.execute("SELECT record FROM sessions WHERE id = 'held'").fetchall()
    assert not decode(content).snapshots


def test_a_commit_does_not_write_snapshots_again(tmp_path: Path) -> None:
    store = database(tmp_path)
    snapshots = {str(n): record(version=n, attributes={"stamp": str(n)}) for n in range(8)}
    first = store.write(Batch(writes=[Write(record(snapshots=snapshots), 0)])).bytes
    again = store.write(Batch(writes=[Write(record(version=9, snapshots=snapshots), 1)])).bytes
    assert again == len(encode(record(version=9)))
    assert first > 8 * again
    store.close()


def test_a_damaged_snapshot_is_told(tmp_path: Path) -> None:
    store = database(tmp_path)
    store.write(Batch(writes=[Write(record(snapshots={"s": record()}), 0)]))
    with closing(sqlite(store.path)) as connection:
        connection.execute("UPDATE snapshots SET record = x'00'")
    with pytest.raises(Damaged, match="snapshot 's'"):
        store.claim(record().key, 0.0, lambda found: found)
    assert store.page(None, None, None, 1, 0.0)[0].damage
    store.close()


def test_a_migration_that_fails_leaves_the_old_format(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with closing(sqlite(path)) as connection:
        connection.executescript(FORMAT_1)
        connection.execute("INSERT INTO sessions VALUES ('digits', 'cam', ?)", (encode(record()),))
        connection.execute("CREATE TABLE sessions_1 (in_the_way)")
    with pytest.raises(StoreError, match="sessions_1"):
        database(tmp_path)
    with closing(sqlite(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
        connection.execute("DROP TABLE sessions_1")
    assert database(tmp_path).count() == 1


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        ("PRAGMA user_version = 2; CREATE TABLE t (x)", "something else"),
        (f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 9; CREATE TABLE t (x)", "format is 9"),
        ("CREATE TABLE sessions (model, id, record)", "something else"),
    ],
)
def test_what_is_no_store_of_ours_is_refused_and_left_alone(tmp_path: Path, made: str, complaint: str) -> None:
    path = tmp_path / "sessions.db"
    with closing(sqlite(path)) as connection:
        connection.executescript(made)
        before = connection.execute("SELECT sql FROM sqlite_schema").fetchall()
    with pytest.raises(StoreError, match=complaint):
        SqliteStore(path)
    with closing(sqlite(path)) as connection:
        assert connection.execute("SELECT sql FROM sqlite_schema").fetchall() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="not a database"):
        SqliteStore(path)
    assert path.read_bytes() == b"no database at all" * 100
    with pytest.raises(StoreError, match="directory"):
        SqliteStore(tmp_path)


def test_a_record_under_another_name_is_damaged(path: Path) -> None:
    with closing(sqlite(path)) as connection:
        connection.execute("UPDATE sessions SET id = 'z' WHERE id = 'a'")
    store = SqliteStore(path)
    with pytest.raises(Damaged, match="record of"):
        store.claim(("", "reference", "z"), 0.0, lambda found: found)
    store.close()


def test_check_finds_what_does_not_hold(path: Path) -> None:
    sound = run("store", "check", str(path), "--json")
    assert sound.returncode == 0, sound.stderr
    document = json.loads(sound.stdout)
    assert document["sound"]
    assert [(row["session"], row["version"], row["holds"]) for row in document["sessions"]] == [
        ("a", 7, True), ("b", 7, True), ("c", 7, True),
    ]  # fmt: skip
    spoil(path, "b")
    ended = run("store", "check", str(path))
    assert ended.returncode == BAD_STORE
    assert "3 sessions, 1 damaged" in ended.stdout
    assert "b: the checksum over its" in ended.stdout


def test_check_tells_owners_that_are_alive(path: Path) -> None:
    store = SqliteStore(path)
    store.claim(("", "reference", "a"), 0.0, lambda found: found)
    document = json.loads(run("store", "check", str(path), "--json").stdout)
    assert [(row["owner"], row["owner_alive"]) for row in document["sessions"]] == [
        (store.owner, True), ("", False), ("", False),
    ]  # fmt: skip
    store.close()


def test_vacuum_gives_space_back(path: Path) -> None:
    store = SqliteStore(path)
    big = [Write(record(session_id=f"big-{n}", fields={"theta": np.zeros(50_000, np.float32)}), 0) for n in range(8)]
    store.write(Batch(writes=big))
    store.write(Batch(deleted={write.record.key: 1 for write in big}))
    store.close()
    (path.with_name(f"{path.name}.owners") / "dead-1-abc.lock").touch()
    ended = run("store", "vacuum", str(path), "--json")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["bytes_before"] > 1_000_000 > document["bytes_after"] == path.stat().st_size
    assert list(path.with_name(f"{path.name}.owners").iterdir()) == []
    assert json.loads(run("store", "check", str(path), "--json").stdout)["sound"]


def test_export_writes_what_sessions_learnt_and_says_what_it_could_not(path: Path, manifest: Manifest) -> None:
    spoil(path, "b")
    into = path.parent / "out"
    ended = run("store", "export", str(path), str(into))
    assert ended.returncode == BAD_STORE
    assert "2 of 3 sessions written" in ended.stdout
    assert sorted(file.name for file in (into / "reference").iterdir()) == ["a.safetensors", "c.safetensors"]
    with safe_open(into / "reference" / "a.safetensors", "numpy") as file:
        metadata = file.metadata()
        theta = np.concatenate([file.get_tensor(entry.name).ravel() for entry in manifest.parameters.slices])
    np.testing.assert_array_equal(theta, learnt(manifest, "a").fields["theta"])
    assert (metadata["format"], metadata["session"], metadata["version"]) == ("acclimate.session", "a", "7")
    assert metadata["parameters_digest"] == manifest.parameters.digest


def test_a_name_that_would_leave_the_directory_is_not_written(path: Path) -> None:
    with closing(sqlite(path)) as connection:
        connection.execute("UPDATE sessions SET id = '../../b' WHERE id = 'b'")
    ended = run("store", "export", str(path), str(path.parent / "out"))
    assert ended.returncode == BAD_STORE
    assert "cannot be a file's" in ended.stdout
    assert list(path.parent.rglob("b.safetensors")) == []


@pytest.mark.parametrize("command", ["check", "vacuum", "export"])
def test_a_store_that_cannot_be_opened_is_one_line_and_exit_code_6(tmp_path: Path, command: str) -> None:
    more = [str(tmp_path / "out")] if command == "export" else []
    code, line = failure(run("store", command, str(tmp_path / "none.db"), *more))
    assert code == BAD_STORE
    assert "there is no such file" in line
    (tmp_path / "text.db").write_text("text" * 1000)
    code, line = failure(run("store", command, str(tmp_path / "text.db"), *more))
    assert code == BAD_STORE
    assert "not a database" in line
    assert not (tmp_path / "none.db").exists()


def test_a_daemon_does_not_start_on_a_store_that_it_cannot_open(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("text" * 1000)
    environment = {"ACCLIMATE_STORE__PATH": str(tmp_path / "text.db")}
    ports = ("--grpc-port", "0", "--http-port", "0")
    ended = run("serve", "--bundle", str(bundle_path), *ports, **environment)
    assert ended.returncode == BAD_STORE
    assert ended.stdout == ""
    assert "text.db" in ended.stderr
    assert "Traceback" not in ended.stderr
