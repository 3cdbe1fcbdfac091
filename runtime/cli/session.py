"""`acclimate session`: look at the sessions of a running daemon, reset them, take out what they learnt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from acclimate.runtime.cli import export
from acclimate.runtime.cli.output import ExitCode, fail, write_json, write_table

if TYPE_CHECKING:
    from acclimate.runtime.client import Client, ExportedSession, SessionView

app = typer.Typer(
    no_args_is_help=True, help="Look at the sessions of a running daemon, reset them, take out what they learnt."
)

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


class Form(StrEnum):
    """What a session is taken out as."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"


@app.command("export")
def export_(
    name: Annotated[str, typer.Argument(help="models/MODEL/sessions/SESSION, MODEL/SESSION, or SESSION with --model.")],
    out: Annotated[Path, typer.Option(help="File to write; one that exists is replaced.")],
    form: Annotated[
        Form, typer.Option("--format", help="Parameters by name, or the merged int8 model.")
    ] = Form.SAFETENSORS,
    model: Annotated[str | None, typer.Option(help="Model of the session, where NAME is an id alone.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="For onnx: folder of the bundle the session runs on.")] = None,
    target: Target = LOCAL,
) -> None:
    """Write what a session has learnt to a file; the session goes on as it is."""
    if form is Form.ONNX and bundle is None:
        fail(ExitCode.BAD_CONFIG, "--format onnx merges into the bundle's model; give its folder with --bundle DIR")
    owner, session_id = (model, name) if model is not None and "/" not in name else parse(name)
    with _client(target) as client:
        exported = client.export_session(owner, session_id)
    if form is Form.SAFETENSORS:
        _write(exported, out)
        typer.echo(f"{out}: version {exported.version} of {owner}/{session_id}")
        return
    with TemporaryDirectory() as folder:
        state = Path(folder, "session.safetensors")
        _write(exported, state)
        export.run(["adapted", str(bundle), str(state), "--out", str(out)])


def _write(exported: ExportedSession, path: Path) -> None:
    from acclimate.runtime.client.state_file import write_state

    try:
        write_state(exported, path)
    except OSError as error:
        fail(ExitCode.REFUSED, f"{str(path)!r} cannot be written ({error.strerror})")


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
