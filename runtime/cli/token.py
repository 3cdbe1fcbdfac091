"""`acclimate token`: make, list and revoke the bearer tokens of a daemon's token file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acclimate.runtime.cli.output import ExitCode, fail, write_json, write_table

if TYPE_CHECKING:
    from acclimate.runtime.security.tokens import Entry

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the bearer tokens of a daemon's token file.")

File = Annotated[Path, typer.Option("--file", help="The daemon's token file, `security.tokens`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DAY_SECONDS = 86_400.0


@app.command("create")
def create(
    file: File,
    tenant: Annotated[str, typer.Option(help="Whose sessions it opens; needed for role tenant.")] = "",
    role: Annotated[str, typer.Option(help="tenant, operator (reads, metrics) or admin (everything).")] = "tenant",
    note: Annotated[str, typer.Option(help="A word for people: what the token is used for.")] = "",
    days: Annotated[float | None, typer.Option(help="Days until it expires. [default: never]")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it; the file keeps a salted hash, so it cannot be printed again."""
    from acclimate.runtime.security import tokens

    lifetime = None if days is None else days * DAY_SECONDS
    try:
        token, entry = tokens.create(role, tenant, note, time.time(), lifetime)
        entries = tokens.read(file) if file.exists() else {}
        tokens.write(file, entries | {entry.id: entry})
    except tokens.TokenError as error:
        fail(ExitCode.BAD_CONFIG, str(error))
    if as_json:
        write_json({"token": token, **_shown(entry)})
    else:
        typer.echo(token)


@app.command("list")
def list_(file: File, as_json: AsJson = False) -> None:
    """List tokens by id; neither tokens nor hashes are shown."""
    rows = [_shown(entry) for entry in _read(file).values()]
    if as_json:
        write_json(rows)
        return
    columns = ("id", "tenant", "role", "note", "created", "expires")
    times = [(_when(row["created_at"]), _when(row["expires_at"])) for row in rows]
    write_table("", columns, [(*list(row.values())[:4], *when) for row, when in zip(rows, times, strict=True)])


@app.command("revoke")
def revoke(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `list` shows it.")],
    file: File,
    as_json: AsJson = False,
) -> None:
    """Take a token out of the file; a running daemon refuses it within seconds."""
    from acclimate.runtime.security import tokens

    entries = _read(file)
    entry = entries.pop(identity, None)
    if entry is None:
        fail(ExitCode.REFUSED, f"no token {identity!r} in {file}; it has {sorted(entries)}")
    try:
        tokens.write(file, entries)
    except tokens.TokenError as error:
        fail(ExitCode.BAD_CONFIG, str(error))
    if as_json:
        write_json(_shown(entry))
    else:
        typer.echo(f"revoked {identity}, {entry.role} {entry.tenant}".rstrip())


def _read(file: Path) -> dict[str, Entry]:
    from acclimate.runtime.security import tokens

    try:
        return tokens.read(file)
    except tokens.TokenError as error:
        fail(ExitCode.BAD_CONFIG, str(error))


def _shown(entry: Entry) -> dict[str, Any]:
    names = ("id", "tenant", "role", "note", "created_at", "expires_at")
    return {name: getattr(entry, name) for name in names}


def _when(unix_seconds: float | None) -> str:
    return "never" if unix_seconds is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_seconds))
