"""Dashboards: the committed JSON is what the Python says, and Grafana can draw it."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest

from ops.grafana._build import document
from ops.grafana.boards import BOARDS
from tests.ops.documents import GRAFANA, alerts, boards, panels

VARIABLE = re.compile(r"\$\{?(\w+)\}?")
GIVEN = {"__rate_interval", "__range"}
COLUMNS = 24
EACH = pytest.mark.parametrize("name", sorted(BOARDS))


@EACH
def test_the_committed_json_is_current(name: str) -> None:
    committed = (GRAFANA / f"{name}.json").read_text("utf-8")
    assert committed == document(BOARDS[name]), "run: python -m ops.grafana"


def test_there_is_a_board_for_every_file() -> None:
    assert set(boards()) == set(BOARDS)
    assert len({board["uid"] for board in boards().values()}) == len(boards())


@EACH
def test_panels_say_what_they_show_and_in_what_unit(name: str) -> None:
    titles = [panel["title"] for panel in panels(boards()[name])]
    assert len(set(titles)) == len(titles)
    for panel in panels(boards()[name]):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"].get("thresholds") or panel["type"] == "heatmap"
        assert panel["targets"], panel["title"]


@EACH
def test_panels_lie_beside_each_other(name: str) -> None:
    everything = boards()[name]["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in everything:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= COLUMNS
    places = [panel["gridPos"] for panel in everything]
    assert not [pair for pair in combinations(places, 2) if _overlap(*pair)]


def _overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    def apart(start: str, size: str) -> bool:
        return a[start] + a[size] <= b[start] or b[start] + b[size] <= a[start]

    return not (apart("x", "w") or apart("y", "h"))


@EACH
def test_every_variable_is_one_of_the_board(name: str) -> None:
    board = boards()[name]
    known = {variable["name"] for variable in board["templating"]["list"]} | GIVEN
    assert {"datasource", "model", "runbook"} <= known
    assert set(VARIABLE.findall(_text({**board, "templating": board["templating"]["list"][1]["query"]}))) <= known


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(map(_text, value.values()))
    return " ".join(map(_text, value)) if isinstance(value, list) else str(value)


@EACH
def test_roll_backs_and_model_changes_are_marked_and_alerts_lead_to_the_runbook(name: str) -> None:
    board = boards()[name]
    assert {a["name"] for a in board["annotations"]["list"]} == {"Roll-backs", "Sessions taken back", "Model changes"}
    urls = [link["url"] for panel in panels(board) for link in panel.get("links", [])]
    assert urls
    for url in urls:
        assert url in {f"${{runbook}}#{alert.lower()}" for alert in alerts()}
    assert any(link["url"] == "${runbook}" for link in board["links"] if link["type"] == "link")
