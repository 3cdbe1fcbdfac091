"""Every benchmark takes --json and prints one object with a flat map of finite figures."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from acclimate.runtime.engines.reference_language import reference_language
from benchmarks import _intents_plot
from benchmarks._bbh import Kept
from benchmarks._intents import User
from benchmarks._report import Report, Value, commit, emit
from tests.house.tree import ROOT

RUNNABLE = 'if __name__ == "__main__"'
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if RUNNABLE in path.read_text("utf-8"))
REPORT = Report("example", {"step_ms": 1.5}, [{"rows": 1, "step_ms": 1.25}, {"rows": 16, "step_ms": 1.75}])


def test_json_is_one_object_with_its_circumstances(capsys: pytest.CaptureFixture[str]) -> None:
    emit(REPORT, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["benchmark"] == "example"
    assert document["figures"] == {"step_ms": 1.5}
    assert document["rows"] == [{"rows": 1, "step_ms": 1.25}, {"rows": 16, "step_ms": 1.75}]
    assert set(document["machine"]) == {"processor", "cores", "memory_mb", "system", "python"}
    assert document["commit"] == commit()


def test_the_table_shows_rows_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    emit(REPORT, as_json=False)
    shown = capsys.readouterr().out
    for text in ("example: measurements", "1.25", "1.75", "example: figures", "1.5", commit()):
        assert text in shown


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_a_figure_that_is_not_finite_is_refused(figure: float) -> None:
    with pytest.raises(ValueError, match="step_ms"):
        emit(Report("example", {"step_ms": figure}, []), as_json=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_takes_json(name: str) -> None:
    assert "--json" in _benchmark(name, "--help")


def test_startup_measures_a_real_daemon(bundle_path: Path) -> None:
    printed = _benchmark("startup", "--json", "--runs", "1", "--skip-install", "--bundle", str(bundle_path))
    document = json.loads(printed)
    assert document["benchmark"] == "startup"
    assert set(document["figures"]) == {"ready_seconds", "rss_ready_mb", "rss_mb", "rss_adapted_mb"}
    assert all(figure > 0 for figure in document["figures"].values())
    assert len(document["rows"]) == 2


def _benchmark(name: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_table_that_was_cut_off_goes_on_where_it_ended(tmp_path: Path) -> None:
    file, measured = tmp_path / "rows.jsonl", list[str]()

    def measure(name: str) -> dict[str, Value]:
        measured.append(name)
        if name == "third":
            raise KeyboardInterrupt
        return {"task": name, "ttt": 50.0}

    with pytest.raises(KeyboardInterrupt):
        Kept(file, {"limit": "20"}).all(["first", "third"], measure)
    rows = Kept(file, {"limit": "20"}).all(["first", "second"], measure)
    assert rows == [{"task": "first", "ttt": 50.0}, {"task": "second", "ttt": 50.0}]
    assert measured == ["first", "third", "second"]
    with pytest.raises(SystemExit, match="--keep"):
        Kept(file, {"limit": "10"})


def test_a_picture_of_examples_has_the_frozen_models_lines_in_it(tmp_path: Path) -> None:
    """Taught nothing, a session answers as the frozen model does, whatever the number of examples."""
    pytest.importorskip("matplotlib")
    language = reference_language("red green blue " * 20)

    def users_of(shots: int) -> list[User]:
        examples = tuple((f"the {word} one {n}", at) for at, word in enumerate(("red", "blue")) for n in range(shots))
        return [User(("red", "blue"), examples, (("a red one", 0), ("a blue one", 1)))]

    rows = _intents_plot.measured(language, users_of, lambda _: language.source.theta[np.newaxis])
    assert [row["examples"] for row in rows] == [1, 2, 4, 8]
    for row in rows:
        assert (row["zero_shot"], row["zero_shot_calibrated"]) == (row["trained"], row["trained_calibrated"])
        assert row["zero_shot"] == rows[0]["zero_shot"]
    _intents_plot.draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
