"""Every command and every line of Python of the tutorials, typed in their order against a real daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Block, Reader, blocks
from tests.house.tree import ROOT

TUTORIALS = ROOT / "docs" / "tutorials"
# What a reader sees at the end of each, in words that a run's figures do not change.
SHOWN = {
    "client": (
        "frozen: ",
        "updates, ",
        "right, by the daemon's own estimate",
        "labelled answers were right",
        "camera-2",
    ),
    "exporter": ("norm.scale", "updates of ", "bytes of its own"),
    "operator": ("SERVING", "acclimate_sessions{", "UNAUTHENTICATED CREDENTIAL_MISSING", "camera-1 is where it was"),
    "researcher": ("source ", "tent, lr 0.01: ", "renyi ", "distance from the source"),
}
SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW) for name in SHOWN])
def test_a_tutorial_does_what_it_says(name: str, bundle_path: Path, tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        for block in blocks(TUTORIALS / f"{name}.md"):
            reader.run(block)
    for text in SHOWN[name]:
        assert text in reader.printed, reader.printed


def test_every_tutorial_is_run() -> None:
    assert {path.stem for path in TUTORIALS.glob("*.md")} == set(SHOWN)


def test_what_is_not_run_says_why_and_is_little(tmp_path: Path) -> None:
    for name in SHOWN:
        text = (TUTORIALS / f"{name}.md").read_text("utf-8")
        assert len(blocks(TUTORIALS / f"{name}.md")) >= 5
        assert text.count("<!-- not run: ") == 1
        assert text.count("```") == 2 * (len(blocks(TUTORIALS / f"{name}.md")) + 1 + text.count("```toml"))


def test_a_block_that_fails_fails_the_page(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.run(Block("python", "x = 1\n"))
        reader.run(Block("python", "assert x == 1; print('kept')\n"))
        assert reader.printed == "kept\n"
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            reader.run(Block("python", "x / 0\n"))
        with pytest.raises(AssertionError, match="not-a-command"):
            reader.run(Block("console", "not-a-command\n"))
