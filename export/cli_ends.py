"""How a command of `acclimate export` ends: what it prints, and the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from acclimate.export.progress import COMPILER_STAGES, stages

if TYPE_CHECKING:
    from acclimate.export.report import Report

EXTRA = frozenset(
    {"torch", "onnx", "onnxscript", "onnxruntime", "optimum", "transformers", "tokenizers", "requests", "PIL"}
)


class ExitCode(IntEnum):
    """How a command ends when it does not succeed."""

    REFUSED = 1
    BAD_ARGUMENT = 2
    EXTRA_MISSING = 3


def show(report: Report, out: Path, *, as_json: bool) -> None:
    """What was written, on stdout; the whole report lies in the bundle."""
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), indent=2) + "\n")
        return
    parity, size = report.parity, sum(report.file_bytes.values())
    drop = "unknown (no labels)" if parity.int8_drop_points is None else f"{parity.int8_drop_points:.2f} points"
    typer.echo(
        f"{out}: {report.sites} sites, {report.parameters} adaptable parameters, {size} bytes; "
        f"forward error {parity.forward_rel_error:.1e}, VJP error {parity.vjp_rel_error:.1e}, int8 drop {drop}"
    )


@contextmanager
def refusals() -> Iterator[None]:
    """What the exporter refuses, and what is not installed, ends the command with one line."""
    try:
        from acclimate.export.errors import ExportError

        try:
            yield
        except ExportError as error:
            fail(ExitCode.REFUSED, str(error))
    except ModuleNotFoundError as error:
        # Any other missing module is a defect, and its traceback is wanted.
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        fail(ExitCode.EXTRA_MISSING, f"package {error.name!r} is missing; run: pip install 'acclimate[export]'")


@contextmanager
def exporting() -> Iterator[None]:
    """`refusals`, and the first of the stages that are shown on a terminal: torch alone takes seconds to load."""
    with refusals(), stages(sys.stderr, 1 + COMPILER_STAGES) as notify:
        notify("loading")
        yield


def fail(code: ExitCode, message: str) -> NoReturn:
    """One line on stderr, and out."""
    sys.stderr.write(f"acclimate: {' '.join(message.split())}\n")
    raise typer.Exit(code)
