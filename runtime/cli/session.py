"""`acclimate session`: look at the sessions of a running daemon, and reset them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from acclimate.runtime.cli.output import ExitCode, fail, write_json, write_table

if TYPE_CHECKING:
    from acclimate.runtime.client import Client, SessionView

app = typer.Typer(no_args_is_help=True, help="Look at the sessions of a running daemon, and reset them.")

Target = Annotated[str, typer.Option(help="host:port of the daemon's gRPC port.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="models/MODEL/sessions/SESSION, or MODEL/SESSION.")]
LOCAL = "127.0.0.1:8001"


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Option(help="Only sessions of this model.")] = None,
    target: Target = LOCAL,
    as_json: AsJson = False,
) -> None:
    """List open sessions."""
    with _client(target) as client:
        views = list(client.list_sessions(model))
    if as_json:
        write_json([asdict(view) for view in views])
        return
    columns = ("model", "session", "recipe", "state", "version", "samples", "updates", "rollbacks", "accuracy*")
    rows = [
        (v.model, v.session_id, v.recipe, v.state, v.version, v.samples, v.updates, v.rollbacks,
         f"{v.estimated_accuracy:.3f}")
        for v in views
    ]  # fmt: skip
    write_table("", columns, rows)
    typer.echo(f"{len(views)} open; * estimated without labels")


@app.command("get")
def get(name: Name, target: Target = LOCAL, as_json: AsJson = False) -> None:
    """Show one session."""
    model, session_id = parse(name)
    with _client(target) as client:
        view = client.get_session(model, session_id)
    _show(view, as_json)


@app.command("reset")
def reset(name: Name, target: Target = LOCAL, as_json: AsJson = False) -> None:
    """Set one session back to the source model; its counters stay."""
    model, session_id = parse(name)
    with _client(target) as client:
        view = client.reset_session(model, session_id)
    _show(view, as_json)


def parse(name: str) -> tuple[str, str]:
    """Model and session id of either form of name."""
    short = name.removeprefix("models/").replace("/sessions/", "/", 1) if name.startswith("models/") else name
    model, separator, session_id = short.partition("/")
    if not (model and separator and session_id):
        fail(ExitCode.BAD_CONFIG, f"session name {name!r} must be MODEL/SESSION or models/MODEL/sessions/SESSION")
    return model, session_id


@contextmanager
def _client(target: str) -> Iterator[Client]:
    """A connected client whose errors end the command."""
    from acclimate.runtime.client import Client, ClientError

    with Client(target) as client:
        try:
            yield client
        except ClientError as error:
            hint = f"; is a daemon running at {target}?" if error.code == "UNAVAILABLE" and not error.reason else ""
            fail(ExitCode.REFUSED, f"{error}{hint}")


def _show(view: SessionView, as_json: bool) -> None:
    document = asdict(view)
    if as_json:
        write_json(document)
        return
    write_table(f"{view.model}/{view.session_id}", ("field", "value"), list(document.items()))
