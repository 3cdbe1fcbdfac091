"""docs/web.md and the style sheet keep their word."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from acclimate.runtime.ranking import Glance, Sort
from acclimate.runtime.web import bridge, documents
from acclimate.runtime.web.api import Api
from acclimate.runtime.web.page import STATIC
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "web.md").read_text(encoding="utf-8")
DOCUMENTS = (
    documents.Status,
    documents.ModelList,
    documents.ModelFigures,
    documents.Points,
    documents.SessionList,
    documents.SessionDetail,
    documents.EventList,
    documents.Problem,
)
LEAST_CONTRAST = 4.5


def words(name: str) -> set[str]:
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    return set(re.findall(r"`([a-z_]+)`", row))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.__name__)
def test_every_field_is_documented(document: type) -> None:
    assert {field.name for field in fields(document)} <= words(document.__name__)


def test_the_rows_of_a_list_are_documented() -> None:
    assert {field.name for field in fields(Glance)} - {"tenant"} | {"outline"} == words("sessions[]")


def test_every_path_action_and_order_is_documented() -> None:
    documented = {re.sub(r"\?.*", "", path) for path in re.findall(r"`(?:GET|POST) /api(/[^`]*)`", PAGE)}
    api = Api.__new__(Api)
    served = {re.sub(r"\{(\w+)\}", lambda part: part[1].upper(), route.path) for route in api.routes()}
    assert served == documented
    for word in (*bridge.ACTIONS, *Sort):
        assert re.search(rf"`{word}`|/{word}`", PAGE), word


def test_what_is_shipped_is_named_with_its_licence() -> None:
    notice = (STATIC / "vendor" / "NOTICE").read_text(encoding="utf-8")
    shown = (STATIC / "vendor" / "uplot.min.js").read_text(encoding="utf-8")[:80]
    (version,) = re.findall(r"\(v([\d.]+)\)", shown)
    assert notice.startswith(f"uPlot {version}\n")
    assert "1.6.32 (MIT)" in PAGE and version == "1.6.32"
    assert "MIT License" in (STATIC / "vendor" / "LICENSE-uplot.txt").read_text(encoding="utf-8")


def test_files_hold_one_subject() -> None:
    long = [path.name for path in Path(STATIC).iterdir() if path.is_file() and len(path.read_text().splitlines()) > 300]
    assert not long


def test_nothing_makes_markup_of_what_is_told() -> None:
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser")
    assert not [path.name for path in STATIC.glob("*.js") if forbidden.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_can_be_read(theme: str) -> None:
    sheet = (STATIC / "app.css").read_text(encoding="utf-8")
    start = ":root {" if theme == "light" else ':root[data-theme="dark"] {\n  --bg'
    block = sheet[sheet.index(start) :].partition("}")[0]
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block))
    pairs = [("text", "bg"), ("text", "surface"), ("muted", "bg"), ("muted", "surface"), ("accent", "surface"),
             ("accent", "bg"), ("accent", "tint"), ("accent-text", "accent"), ("danger", "surface"),
             ("danger", "danger-tint"), ("warn", "warn-tint"), ("muted", "grid")]  # fmt: skip
    low = {pair: round(contrast(*(colours[name] for name in pair)), 2) for pair in pairs}
    assert not {pair: ratio for pair, ratio in low.items() if ratio < LEAST_CONTRAST}


def contrast(one: str, other: str) -> float:
    """Contrast ratio by WCAG 2.2, 1.4.3."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_two_ways_to_dark_are_the_same() -> None:
    sheet = (STATIC / "app.css").read_text(encoding="utf-8")
    chosen = sheet[sheet.index(':root[data-theme="dark"] {\n  --bg') :].partition("{")[2].partition("}")[0]
    system = sheet[sheet.index(':root:not([data-theme="light"]) {\n    --bg') :].partition("{")[2].partition("}")[0]
    assert chosen.split() == system.split()
