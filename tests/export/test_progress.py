"""Progress on a terminal, and silence everywhere else."""

from __future__ import annotations

import io
import os
import pty
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from acclimate.export.cli import app
from acclimate.export.progress import COMPILER_STAGES, counted, stages
from tests.export.nets import pictures
from tests.export.test_cli import FACTORY, weights

SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def shown(text: str) -> list[str]:
    """What a terminal was told, without colours and movements."""
    return [line.strip() for line in re.split(r"[\r\n]+", SEQUENCE.sub("", text)) if line.strip()]


def test_stages_and_counts_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with stages(stream, 3) as outer:
        outer("loading")
        with stages(stream, 2) as inner:
            inner("measuring")
            assert list(counted([5, 6, 7], "batches")) == [5, 6, 7]
            inner("writing")
    text = "\n".join(shown(stream.getvalue()))
    assert re.search(r"writing .* 3/3 stages", text)
    assert list(counted("ab", "letters")) == ["a", "b"]


def test_nothing_is_shown_elsewhere() -> None:
    stream = io.StringIO()
    with stages(stream, 2) as notify:
        notify("loading")
        assert list(counted([1, 2], "batches")) == [1, 2]
    assert stream.getvalue() == ""


def test_a_person_at_a_terminal_sees_every_stage_of_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    save_file(weights(), tmp_path / "w.safetensors")
    np.savez(tmp_path / "c.npz", x=pictures(200))
    master, slave = pty.openpty()
    read: list[bytes] = []
    reader = threading.Thread(target=drain, args=(master, read))
    reader.start()
    given = [FACTORY, "--weights", "w.safetensors", "--calibration", "c.npz", "--mean", "0.4,0.5", "--std", "0.2,0.3"]
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with pytest.raises(SystemExit) as ended:
            app(args=["torch", *given, "--out", "tiny", "--json"], prog_name="acclimate export")
        monkeypatch.undo()
    reader.join()
    os.close(master)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("{"), "the report alone is on standard output"
    text = "\n".join(shown(b"".join(read).decode()))
    total = COMPILER_STAGES + 1
    assert re.search(rf"writing .* {total}/{total} stages", text), text[-2000:]
    for stage in ("tracing the model", "quantizing weights", "measuring source statistics", "effect of headroom"):
        assert stage in text
    assert re.search(r"\d/4 factors", text)


def drain(descriptor: int, into: list[bytes]) -> None:
    """Read a terminal until its other side is closed."""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:
            return
        if not part:
            return
        into.append(part)
