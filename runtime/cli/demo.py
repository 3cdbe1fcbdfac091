"""`acclimate demo`: run a demonstration that an installed package offers."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated

import typer

from acclimate.runtime.cli.output import ExitCode, fail

GROUP = "acclimate.demos"
DEFAULT = "digits"


def demo(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME] [OPTIONS]", help="Name of the demo (digits, llm), and options of its own."),
    ] = None,
) -> None:
    """Run a demo; options such as --json and --seconds go to it."""
    name, options = split(arguments or [])
    offered = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in offered:
        fail(ExitCode.BAD_CONFIG, f"no demo {name!r}; there are {sorted(offered)}")
    raise typer.Exit(offered[name].load()(options) or 0)


def split(arguments: list[str]) -> tuple[str, list[str]]:
    """Name of the demo, and what is passed on to it."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    return DEFAULT, arguments
