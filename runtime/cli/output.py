"""What commands share: exit codes, one-line failures, JSON and tables on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NoReturn

import typer


class ExitCode(IntEnum):
    """How a command ends when it does not succeed."""

    REFUSED = 1
    BAD_CONFIG = 2
    ENGINE_MISSING = 3
    PORT_TAKEN = 4
    BAD_BUNDLE = 5
    BAD_STORE = 6


def fail(code: ExitCode, message: str) -> NoReturn:
    """One line on stderr, and out."""
    sys.stderr.write(f"acclimate: {' '.join(message.split())}\n")
    raise typer.Exit(code)


def write_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def write_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; as wide as its contents where stdout is not a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console()
    Console(width=None if console.is_terminal else 200).print(table)
