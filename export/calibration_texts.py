"""Texts, and their labels where known, from the files that people keep them in."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.export.errors import CalibrationError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")


@dataclass(frozen=True)
class Columns:
    """Where a table keeps its texts and, if it has any, its labels; a file of lines has texts alone."""

    text: str = "text"
    label: str | None = None


def read_texts(path: Path, columns: Columns) -> tuple[list[str], list[str] | None]:
    """Texts, and labels as they are written.

    Args:
        path: `.csv` or `.tsv` with a header, `.jsonl` with an object a line, or `.txt` with a text a line.
        columns: names of a header or of keys.

    Raises:
        CalibrationError: the file cannot be read, or a row lacks a column.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CalibrationError(f"calibration: {str(path)!r} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise CalibrationError(f"calibration: {str(path)!r} is not text in UTF-8") from error
    if path.suffix.lower() == ".txt":
        return [line.strip() for line in content.splitlines() if line.strip()], None
    rows = list(_rows(path, content))
    texts = [_cell(path, i, row, columns.text, "--text-column") for i, row in rows]
    if columns.label is None:
        return texts, None
    return texts, [_cell(path, i, row, columns.label, "--label-column") for i, row in rows]


def class_numbers(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Labels as numbers `[N]`: a class by its name, or by its number.

    Raises:
        CalibrationError: neither.
    """
    numbers = {name: index for index, name in enumerate(classes)}
    numbers |= {str(index): index for index in range(len(classes)) if str(index) not in numbers}
    for label in labels:
        if label not in numbers:
            raise CalibrationError(
                f"calibration: label {label[:60]!r} is no class of the model, which has {len(classes)}, from "
                f"{classes[0]!r} to {classes[-1]!r}; give those names, or numbers in 0..{len(classes) - 1}"
            )
    return np.array([numbers[label] for label in labels], np.int64)


def _rows(path: Path, content: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with the number of the line each ends on."""
    if path.suffix.lower() in (".csv", ".tsv"):
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        try:
            reader = csv.DictReader(content.splitlines(keepends=True), delimiter=delimiter, strict=True)
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise CalibrationError(f"calibration: {str(path)!r} is not a table ({error})") from error
        return
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise CalibrationError(f"calibration: {str(path)!r}, line {number} is not JSON ({error})") from error
            yield number, row if isinstance(row, dict) else {}


def _cell(path: Path, line: int, row: Mapping[str, Any], column: str, option: str) -> str:
    value = row.get(column)
    if value is None:
        found = [str(key) for key in row][:6]
        raise CalibrationError(
            f"calibration: {str(path)!r}, line {line} has no {column!r}; it has {found}: say {option}"
        )
    return str(value).strip()
