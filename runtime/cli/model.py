"""`acclimate model`: which models a running daemon serves, and changing that."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from acclimate.runtime.cli.output import write_json, write_table
from acclimate.runtime.cli.session import LOCAL, AsJson, Target, access, connected

app = typer.Typer(no_args_is_help=True, help="Which models a running daemon serves; load, replace and unload them.")

app.callback()(access)

Name = Annotated[str, typer.Argument(help="Name of the model, as its bundle says.")]


class Unfit(StrEnum):
    """What becomes of adapted sessions that cannot go on."""

    REFUSE = "refuse"
    RESET = "reset"
    DROP = "drop"


class Open(StrEnum):
    """What becomes of the sessions of a model that goes."""

    REFUSE = "refuse"
    DROP = "drop"


@app.command("list")
def list_(target: Target = LOCAL, as_json: AsJson = False) -> None:
    """List what is served or could be."""
    from acclimate.runtime.client.repository import model_index

    with connected(target) as client:
        entries = model_index(client)
    if as_json:
        write_json([asdict(entry) for entry in entries])
        return
    write_table("", ("model", "version", "state", "reason"), [(e.name, e.version, e.state, e.reason) for e in entries])


@app.command("load")
def load(
    name: Name,
    version: Annotated[str, typer.Option(help="Version to serve. [default: the highest]")] = "",
    sessions: Annotated[
        Unfit, typer.Option(help="What becomes of adapted sessions that cannot be carried over.")
    ] = Unfit.REFUSE,
    target: Target = LOCAL,
) -> None:
    """Serve a model, in the place of what serves its name so far."""
    from acclimate.runtime.client.repository import load_model

    with connected(target) as client:
        load_model(client, name, version=version, sessions=sessions.value)
        typer.echo(f"{name} is served")


@app.command("unload")
def unload(
    name: Name,
    sessions: Annotated[Open, typer.Option(help="What becomes of its sessions.")] = Open.REFUSE,
    target: Target = LOCAL,
) -> None:
    """Serve a model no more."""
    from acclimate.runtime.client.repository import unload_model

    with connected(target) as client:
        unload_model(client, name, sessions=sessions.value)
        typer.echo(f"{name} is not served")
