"""Rules and boards as they are committed, and what they name."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import yaml

from acclimate.runtime.metrics.catalogue import ALL
from acclimate.runtime.metrics.catalogue.rows import PREFIX
from tests.conftest import ROOT

PROMETHEUS, GRAFANA = ROOT / "ops" / "prometheus", ROOT / "ops" / "grafana"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TEST_FILES = sorted((PROMETHEUS / "tests").glob("*.yml"))
RECORDED = re.compile(r"\b[a-z_]+:acclimate_[a-z0-9_]+:[a-z0-9_]+\b")
SCRAPED = re.compile(r"(?<![:a-z_])acclimate_[a-z0-9_]+\b(?!:)")
PARTS = re.compile(r"_(bucket|count|sum)$")


@cache
def rules() -> list[dict[str, Any]]:
    """Every rule of every file."""
    groups = [group for file in RULE_FILES for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


@cache
def alerts() -> dict[str, dict[str, Any]]:
    """Alerting rules by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@cache
def boards() -> dict[str, dict[str, Any]]:
    """Committed dashboards by the name of their file."""
    return {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(GRAFANA.glob("*.json"))}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Panels of a board, rows left out."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions() -> list[tuple[str, str]]:
    """Every expression with where it stands."""
    found = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    for name, board in boards().items():
        found += [(f"{name}: {p['title']}", target["expr"]) for p in panels(board) for target in p["targets"]]
        found += [(f"{name}: {a['name']}", a["expr"]) for a in board["annotations"]["list"]]
    return found


def unknown(expr: str) -> set[str]:
    """Metrics in an expression that are neither exported nor recorded."""
    exported = {PREFIX + row.name for row in ALL}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    scraped = {name if name in exported else PARTS.sub("", name) for name in SCRAPED.findall(RECORDED.sub("", expr))}
    return (scraped - exported) | (set(RECORDED.findall(expr)) - recorded)


def counters_read_raw(expr: str) -> set[str]:
    """Counters in an expression that stand under no rate() or increase()."""
    counted = {PREFIX + row.name for row in ALL if row.kind == "counter"}
    counted |= {f"{PREFIX}{row.name}_bucket" for row in ALL if row.kind == "histogram"}
    under = re.sub(r"\b(rate|increase)\((acclimate_\w+)(\{[^}]*\})?\[[^\]]+\]\)", "", expr)
    return set(SCRAPED.findall(under)) & counted
