"""Looking after a store from outside: check it, make it small, take out what its sessions learnt.

A daemon may run meanwhile: the store is read as of one moment, and only `vacuum` writes.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.layout import Layout
from acclimate.adapters.manifest import Lora
from acclimate.runtime.store.base import SessionRecord, Stored, StoreError
from acclimate.runtime.store.owners import clear_away, folder_of, held
from acclimate.runtime.store.reading import stored
from acclimate.runtime.store.schema import VERSION, WrongFormat, checked_version
from acclimate.runtime.store.sqlite import BUSY_SECONDS
from acclimate.runtime.types import ExportedSession, named_tensors

# Names become file names.
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found: SQLite's own complaints, and every record with whether its owner is alive."""

    path: Path
    complaints: tuple[str, ...]
    records: tuple[tuple[Stored, bool], ...]

    @property
    def damaged(self) -> int:
        """Records that do not hold."""
        return sum(found.record is None for found, _ in self.records)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.complaints and not self.damaged


def check(path: Path) -> Checked:
    """Verify the database and the checksum of every record.

    Raises:
        StoreError: the file cannot be opened, or is no store of this format.
    """
    with _opened(path, "ro") as connection:
        complaints = tuple(str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)"))
        owners = folder_of(path)
        records = tuple(
            (found, bool(found.owner) and held(owners / f"{found.owner}.lock")) for found in _every(connection)
        )
    return Checked(path, () if complaints == ("ok",) else complaints, records)


def vacuum(path: Path) -> tuple[int, int]:
    """Give unused space back to the file system; bytes before and after.

    Raises:
        StoreError: see `check`; or a daemon is writing all the time.
    """
    before = _size(path)
    with _opened(path, "rw") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    clear_away(folder_of(path))
    return before, _size(path)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a session has learnt, and the file it belongs in; None where it cannot be had, `problem` saying why."""

    key: tuple[str, str, str]
    file: Path
    exported: ExportedSession | None
    problem: str = ""


def learnt(path: Path) -> Iterator[Taken]:
    """What every session has learnt, one after the other.

    Raises:
        StoreError: see `check`.
    """
    with _opened(path, "ro") as connection:
        bundles = dict(connection.execute("SELECT digest, description FROM bundles"))
        for found in _every(connection):
            tenant, model, session = found.key
            names = [name for name in (tenant, model, session) if name]
            if not all(PLAIN.fullmatch(name) for name in names):
                yield Taken(found.key, Path(), None, "its name cannot be a file's")
                continue
            file = Path(*names[:-1]) / f"{session}.safetensors"
            if found.record is None:
                yield Taken(found.key, file, None, found.damage)
            elif found.record.bundle not in bundles:
                yield Taken(found.key, file, None, f"the store does not know its bundle {found.record.bundle[:16]}")
            else:
                yield Taken(found.key, file, _exported(found.record, bundles[found.record.bundle]))


def _exported(record: SessionRecord, description: str) -> ExportedSession:
    described = json.loads(description)
    parameters, statistics = (Layout.from_json(described[name]) for name in ("parameters", "statistics"))
    return ExportedSession(
        model=record.model,
        session_id=record.session_id,
        model_version=described["version"],
        version=record.version,
        parameters_digest=parameters.digest,
        parameters=named_tensors(parameters, record.fields[THETA]),
        statistics=named_tensors(statistics, record.fields[STATS]),
        lora=tuple(Lora(**update) for update in described["lora"]),
    )


def _every(connection: sqlite3.Connection) -> Iterator[Stored]:
    for key in connection.execute("SELECT tenant, model, id FROM sessions ORDER BY tenant, model, id").fetchall():
        found = stored(connection, key)
        if found is not None:
            yield found


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}-wal")) if file.exists())


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise StoreError(f"{path}: there is no such file")
    try:
        name = f"file:{quote(str(path.resolve()))}?mode={mode}"
        with closing(sqlite3.connect(name, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            version = checked_version(connection)
            if version != VERSION:
                raise StoreError(f"{path}: its format is {version}, not {VERSION}; a daemon that opens it migrates it")
            yield connection
    except (sqlite3.Error, WrongFormat) as error:
        raise StoreError(f"{path}: {error}") from error
