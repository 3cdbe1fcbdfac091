"""`acclimate store`: check a store of sessions, make it small, take out what they learnt. No daemon is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from acclimate.runtime.cli.output import ExitCode, fail, write_json, write_table

app = typer.Typer(no_args_is_help=True, help="Look after a store of sessions; no daemon is needed, one may run.")

Database = Annotated[Path, typer.Argument(help="The SQLite file, `store.path` of the configuration.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("check")
def check(path: Database, as_json: AsJson = False) -> None:
    """Verify the database and the checksum of every session's record; exit code 6 if anything is wrong."""
    from acclimate.runtime.wiring import store_tools

    with _opened():
        found = store_tools.check(path)
    rows = [
        {
            "tenant": record.key[0],
            "model": record.key[1],
            "session": record.key[2],
            "state": "" if record.record is None else record.record.state,
            "version": None if record.record is None else record.record.version,
            "bytes": record.bytes,
            "owner": record.owner,
            "owner_alive": alive,
            "epoch": record.epoch,
            "holds": record.record is not None,
            "problem": record.damage,
        }
        for record, alive in found.records
    ]
    if as_json:
        write_json({"path": str(path), "sound": found.sound, "complaints": found.complaints, "sessions": rows})
    else:
        columns = ("tenant", "model", "session", "state", "version", "bytes", "owner", "owner_alive", "holds")
        write_table("", columns, [[row[column] for column in columns] for row in rows])
        problems = [f"{row['session']}: {row['problem']}" for row in rows if row["problem"]]
        for complaint in (*found.complaints, *problems):
            typer.echo(complaint)
        typer.echo(f"{len(rows)} sessions, {found.damaged} damaged{'; nothing is wrong' if found.sound else ''}")
    if not found.sound:
        raise typer.Exit(ExitCode.BAD_STORE)


@app.command("vacuum")
def vacuum(path: Database, as_json: AsJson = False) -> None:
    """Give unused space back to the file system, and clear away the locks of daemons that are dead."""
    from acclimate.runtime.wiring import store_tools

    with _opened():
        before, after = store_tools.vacuum(path)
    if as_json:
        write_json({"path": str(path), "bytes_before": before, "bytes_after": after})
    else:
        typer.echo(f"{before} bytes before, {after} after")


@app.command("export")
def export(
    path: Database,
    into: Annotated[Path, typer.Argument(help="Directory for the files, MODEL/SESSION.safetensors each.")],
    as_json: AsJson = False,
) -> None:
    """Write what every session has learnt, as `acclimate session export` does; exit code 6 if any could not be."""
    from acclimate.runtime.client.state_file import write_state
    from acclimate.runtime.wiring import store_tools

    rows = []
    with _opened():
        for taken in store_tools.learnt(path):
            tenant, model, session = taken.key
            row: dict[str, str | int] = {"tenant": tenant, "model": model, "session": session, "problem": taken.problem}
            if taken.exported is not None:
                target = into / taken.file
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_state(taken.exported, target)
                except OSError as error:
                    fail(ExitCode.BAD_CONFIG, f"{target} cannot be written ({error.strerror})")
                row |= {"file": str(target), "version": taken.exported.version}
            rows.append(row)
    failed = [row for row in rows if row["problem"]]
    if as_json:
        write_json({"path": str(path), "sessions": rows})
    else:
        for row in failed:
            typer.echo(f"{row['model']}/{row['session']}: {row['problem']}")
        typer.echo(f"{len(rows) - len(failed)} of {len(rows)} sessions written to {into}")
    if failed:
        raise typer.Exit(ExitCode.BAD_STORE)


@contextmanager
def _opened() -> Iterator[None]:
    from acclimate.runtime.store.base import StoreError

    try:
        yield
    except StoreError as error:
        fail(ExitCode.BAD_STORE, str(error))
