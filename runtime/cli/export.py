"""`acclimate export`: the compiler's commands, where the installed package offers them.

The runtime must not import the exporter, so it finds it as it finds demos: through an entry point.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated

import typer

from acclimate.runtime.cli.output import ExitCode, fail

GROUP = "acclimate.commands"
NAME = "export"


def export(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND [OPTIONS]", help="A command of the exporter, and its options."),
    ] = None,
) -> None:
    """Compile models into bundles; `acclimate export --help` lists the ways."""
    run(arguments or ["--help"])


def run(arguments: list[str]) -> None:
    """Hand over to the exporter's own command line, which ends the process."""
    offered = {entry.name: entry for entry in entry_points(group=GROUP)}
    if NAME not in offered:
        fail(ExitCode.BAD_CONFIG, "this installation offers no `export`; install acclimate from a complete package")
    try:
        app = offered[NAME].load()
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("acclimate"):
            raise
        fail(ExitCode.ENGINE_MISSING, "the exporter is not installed; run: pip install 'acclimate[export]'")
    app(args=arguments, prog_name="acclimate export")
