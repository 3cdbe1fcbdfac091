"""`acclimate session`: open sessions of a running daemon, look at them, reset them, take out what they learnt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acclimate.runtime.cli import export
from acclimate.runtime.cli.output import ExitCode, fail, write_json, write_table

if TYPE_CHECKING:
    from acclimate.runtime.client import Client, ExportedSession, SessionView, SnapshotView

app = typer.Typer(
    no_args_is_help=True,
    help="Sessions of a running daemon: open, look at, copy, keep, change, reset, take out what they learnt.",
)

Target = Annotated[str, typer.Option(envvar="ACCLIMATE_TARGET", help="host:port of the daemon's gRPC port.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="models/MODEL/sessions/SESSION, or MODEL/SESSION.")]
Labels = Annotated[list[str] | None, typer.Option("--label", help="KEY=VALUE, a word to find it by; repeatable.")]
LOCAL = "127.0.0.1:8001"
Token = Annotated[
    str | None, typer.Option(envvar="ACCLIMATE_TOKEN", help="Bearer token; others see it in a list of processes.")
]
Tenant = Annotated[
    str | None, typer.Option(envvar="ACCLIMATE_TENANT", help="Whose sessions an administrator or operator means.")
]
UseTls = Annotated[bool, typer.Option("--tls", help="Use TLS; so does any of the three below.")]
Authority = Annotated[
    Path | None, typer.Option(envvar="ACCLIMATE_CA", help="PEM file: who may have signed the daemon's certificate.")
]
Certificate = Annotated[
    Path | None, typer.Option(envvar="ACCLIMATE_CERTIFICATE", help="PEM file: a certificate of one's own.")
]
Key = Annotated[Path | None, typer.Option(envvar="ACCLIMATE_KEY", help="PEM file: its key.")]
# What the group's own options say, for the command that follows them.
_chosen: ContextVar[dict[str, Any]] = ContextVar("chosen")


@app.callback()
def access(
    token: Token = None,
    tenant: Tenant = None,
    tls: UseTls = False,
    ca: Authority = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Take the options that say who calls, and how; any group whose commands use `connected` has them."""
    _chosen.set({"token": token, "tenant": tenant, "tls": tls, "files": (ca, certificate, key)})


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Option(help="Only sessions of this model.")] = None,
    filter_: Annotated[
        str, typer.Option("--filter", help="Only these: labels.KEY = VALUE, state, recipe, model or paused; AND.")
    ] = "",
    every_tenant: Annotated[bool, typer.Option("--every-tenant", help="Everybody's; for administrators.")] = False,
    target: Target = LOCAL,
    as_json: AsJson = False,
) -> None:
    """List open sessions."""
    with connected(target) as client:
        views = list(client.list_sessions(model, filter=filter_, every_tenant=every_tenant))
    if as_json:
        write_json([asdict(view) for view in views])
        return
    columns: tuple[str, ...] = (
        "model",
        "session",
        "recipe",
        "state",
        "version",
        "samples",
        "updates",
        "rollbacks",
        "accuracy*",
    )
    rows: list[tuple[object, ...]] = [
        (v.model, v.session_id, v.recipe, v.state, v.version, v.samples, v.updates, v.rollbacks,
         f"{v.estimated_accuracy:.3f}")
        for v in views
    ]  # fmt: skip
    if every_tenant:
        columns, rows = ("tenant", *columns), [(v.tenant, *row) for v, row in zip(views, rows, strict=True)]
    write_table("", columns, rows)
    typer.echo(f"{len(views)} open; * estimated without labels")


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="MODEL/SESSION, or MODEL alone: the daemon makes an id.")],
    recipe: Annotated[str | None, typer.Option(help="Adaptation method. [default: the daemon's]")] = None,
    seed: Annotated[
        Path | None,
        typer.Option("--from", help="What it begins with: a PEFT LoRA directory, or a session's safetensors file."),
    ] = None,
    ttl: Annotated[
        float | None, typer.Option(help="Seconds without use until it is closed; 0: never. [default: the daemon's]")
    ] = None,
    label: Labels = None,
    target: Target = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Open a session, at the source or at what was learnt before."""
    model, session_id = (name, None) if "/" not in name else parse(name)
    with connected(target) as client:
        from acclimate.runtime.client import read_seed

        begin = None if seed is None else read_seed(seed)
        view = client.create_session(
            model, session_id, recipe=recipe, seed=begin, ttl_seconds=ttl, labels=labels_of(label)
        ).get()
    show(view, as_json)


@app.command("get")
def get(name: Name, target: Target = LOCAL, as_json: AsJson = False) -> None:
    """Show one session."""
    model, session_id = parse(name)
    with connected(target) as client:
        view = client.get_session(model, session_id)
    show(view, as_json)


@app.command("reset")
def reset(name: Name, target: Target = LOCAL, as_json: AsJson = False) -> None:
    """Set one session back to the source model; its counters stay."""
    model, session_id = parse(name)
    with connected(target) as client:
        view = client.reset_session(model, session_id)
    show(view, as_json)


class Form(StrEnum):
    """What a session is taken out as."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    PEFT = "peft"
    ORT_ADAPTER = "ort-adapter"


MERGING = {Form.ONNX: "adapted", Form.ORT_ADAPTER: "adapter"}
"""What is made of the bundle's model, and the exporter's command that makes it."""


@app.command("export")
def export_(
    name: Annotated[str, typer.Argument(help="models/MODEL/sessions/SESSION, MODEL/SESSION, or SESSION with --model.")],
    out: Annotated[Path, typer.Option(help="File, or for peft directory, to write; an older one is replaced.")],
    form: Annotated[
        Form,
        typer.Option(
            "--format", help="Parameters by name; the merged int8 model; a PEFT LoRA directory; an .onnx_adapter file."
        ),
    ] = Form.SAFETENSORS,
    model: Annotated[str | None, typer.Option(help="Model of the session, where NAME is an id alone.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="For onnx and ort-adapter: folder of the session's bundle.")
    ] = None,
    target: Target = LOCAL,
) -> None:
    """Write what a session has learnt to a file; the session goes on as it is."""
    if form in MERGING and bundle is None:
        fail(ExitCode.BAD_CONFIG, f"--format {form} is made for the bundle's model; give its folder with --bundle DIR")
    owner, session_id = (model, name) if model is not None and "/" not in name else parse(name)
    with connected(target) as client:
        exported = client.export_session(owner, session_id)
    if form not in MERGING:
        left_out = _write_peft(exported, out) if form is Form.PEFT else _write(exported, out)
        note = f"; left out, as PEFT has no place for them: {', '.join(left_out)}" if left_out else ""
        typer.echo(f"{out}: version {exported.version} of {owner}/{session_id}{note}")
        return
    with TemporaryDirectory() as folder:
        state = Path(folder, "session.safetensors")
        _write(exported, state)
        export.run([MERGING[form], str(bundle), str(state), "--out", str(out)])


def _write(exported: ExportedSession, path: Path) -> tuple[str, ...]:
    from acclimate.runtime.client import write_state

    try:
        write_state(exported, path)
    except OSError as error:
        fail(ExitCode.REFUSED, f"{str(path)!r} cannot be written ({error.strerror})")
    return ()


def _write_peft(exported: ExportedSession, path: Path) -> tuple[str, ...]:
    """Names of what a PEFT directory cannot hold."""
    from acclimate.runtime.client import NoLowRankUpdates, write_peft

    try:
        return write_peft(exported, path)
    except NoLowRankUpdates as error:
        fail(ExitCode.REFUSED, str(error))
    except OSError as error:
        fail(ExitCode.REFUSED, f"{str(path)!r} cannot be written ({error.strerror})")


def parse(name: str) -> tuple[str, str]:
    """Model and session id of either form of name."""
    short = name.removeprefix("models/").replace("/sessions/", "/", 1) if name.startswith("models/") else name
    model, separator, session_id = short.partition("/")
    if not (model and separator and session_id):
        fail(ExitCode.BAD_CONFIG, f"session name {name!r} must be MODEL/SESSION or models/MODEL/sessions/SESSION")
    return model, session_id


def labels_of(given: list[str] | None) -> dict[str, str]:
    """Labels from `KEY=VALUE`."""
    labels = {}
    for entry in given or ():
        key, separator, value = entry.partition("=")
        if not separator:
            fail(ExitCode.BAD_CONFIG, f"--label {entry!r} must be KEY=VALUE")
        labels[key] = value
    return labels


@contextmanager
def connected(target: str, **options: Any) -> Iterator[Client]:
    """A connected client, with these options of its own, whose errors end the command."""
    from acclimate.runtime.client import Client, ClientError, Tls

    chosen = _chosen.get()
    ca, certificate, key = chosen["files"]
    tls = Tls(ca, certificate, key) if any(chosen["files"]) else chosen["tls"]
    try:
        connected = Client(target, token=chosen["token"], tenant=chosen["tenant"], tls=tls, **options)
    except (OSError, ValueError) as error:
        fail(ExitCode.BAD_CONFIG, f"credentials cannot be used: {error}")
    with connected as client:
        try:
            yield client
        except ClientError as error:
            hint = f"; is a daemon running at {target}?" if error.code == "UNAVAILABLE" and not error.reason else ""
            fail(ExitCode.REFUSED, f"{error}{hint}")


def show(view: SessionView | SnapshotView, as_json: bool) -> None:
    """A session or snapshot on stdout: a table, or JSON."""
    document = asdict(view)
    if as_json:
        write_json(document)
        return
    write_table(f"{view.model}/{view.session_id}", ("field", "value"), list(document.items()))
