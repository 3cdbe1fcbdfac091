"""What every benchmark prints: a table for people, or with --json one object for machines."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
Value = float | int | str


@dataclass(frozen=True, slots=True)
class Report:
    """A benchmark's outcome.

    Attributes:
        benchmark: its name, the module's.
        figures: what it is about, name -> finite number; the name ends with the unit.
        rows: the measurements behind the figures, one mapping a row, all with the same keys.
    """

    benchmark: str
    figures: Mapping[str, float]
    rows: Sequence[Mapping[str, Value]]


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser that has `--json` already."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return made


def emit(report: Report, *, as_json: bool) -> None:
    """Print the report to stdout, with the machine and the commit it was measured on.

    Raises:
        ValueError: a figure is not a finite number.
    """
    broken = [name for name, figure in report.figures.items() if not math.isfinite(figure)]
    if broken:
        raise ValueError(f"benchmark {report.benchmark!r}: figures {broken} are not finite; measure them again")
    if as_json:
        print(json.dumps(_document(report)))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{report.benchmark}: measurements[/bold]", _table(report.rows), sep="\n")
    console.print(f"[bold]{report.benchmark}: figures[/bold]", _table([report.figures]), sep="\n")
    described = ", ".join(f"{name} {value}" for name, value in machine().items())
    console.print(f"[dim]{described}, commit {commit()}[/dim]", soft_wrap=True)


def machine() -> dict[str, Value]:
    """What the figures depend on: processor, cores this process may use, memory, system, Python."""
    return {
        "processor": _first_field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit of the repository, with `+changes` where the tree differs; `unknown` outside a checkout."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _document(report: Report) -> dict[str, object]:
    return {
        "benchmark": report.benchmark,
        "figures": dict(report.figures),
        "rows": [dict(row) for row in report.rows],
        "machine": machine(),
        "commit": commit(),
    }


def _table(rows: Sequence[Mapping[str, Value]]) -> Table:
    table = Table()
    for key in rows[0] if rows else ():
        table.add_column(key, justify="left" if isinstance(rows[0][key], str) else "right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    return table


def _shown(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _first_field(path: str, key: str) -> str:
    """Value of the first `key : value` line of a /proc file, or the empty string."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
