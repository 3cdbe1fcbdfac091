"""Files hold one subject and functions fit a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.house.tree import ROOT, python_files

SOURCE_LINES = 300
TEST_LINES = 400
FUNCTION_LINES = 60
FUNCTION_LINES_P90 = 40


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_a_file_holds_one_subject(path: Path) -> None:
    limit = TEST_LINES if path.parts[0] == "tests" else SOURCE_LINES
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= limit, f"{path}: {lines} lines, at most {limit}; split it by subject"


def test_functions_fit_a_screen() -> None:
    lengths = {where: lines for path in python_files() for where, lines in _functions(path)}
    too_long = {where: lines for where, lines in lengths.items() if lines > FUNCTION_LINES}
    assert not too_long, f"more than {FUNCTION_LINES} lines: {too_long}"
    p90 = float(np.percentile(list(lengths.values()), 90))
    assert p90 <= FUNCTION_LINES_P90, f"nine functions in ten have at most {p90:.0f} lines"


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    """Place and length, docstring included, of every function in a file."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1
