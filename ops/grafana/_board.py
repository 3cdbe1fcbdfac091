"""What a board is made of: plain data, which `_build.py` turns into Grafana's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "heatmap", "table"]
GREEN, YELLOW, RED = "green", "yellow", "red"

WHERE = 'job="acclimate", model=~"$model"'
"""Selects series of the models that the board shows."""
PAGE = "docs/runbook.md"


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and the name of each series that it returns."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One question and its answer.

    Attributes:
        title, description: the question, and how to read the answer.
        queries: what answers it.
        unit: Grafana's id of the unit.
        kind: how it is drawn.
        steps: colours by the value from which they hold, the first from the least; drawn as lines in a graph.
        width: in columns of 24; height: in rows.
        alert: the alert that watches the same figure; the panel links to its section of the runbook.
        least, most: ends of the axis, where they are known.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str
    kind: Kind = "timeseries"
    steps: tuple[tuple[str, float | None], ...] = ((GREEN, None),)
    width: int = 8
    height: int = 8
    alert: str = ""
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard; `sessions` says whether it lets one choose among the sessions that metrics name."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    sessions: bool = False


def above(yellow: float, red: float | None = None) -> tuple[tuple[str, float | None], ...]:
    """Green, and worse the higher."""
    return ((GREEN, None), (YELLOW, yellow)) + (() if red is None else ((RED, red),))


def below(yellow: float, green: float) -> tuple[tuple[str, float | None], ...]:
    """Red, and better the higher."""
    return ((RED, None), (YELLOW, yellow), (GREEN, green))


def rate(metric: str, by: str = "model", where: str = "") -> str:
    """Increase a second of a counter, summed but for the labels `by`."""
    return f"sum by ({by}) (rate(acclimate_{metric}{{{WHERE}{where}}}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str = "model") -> str:
    """A quantile of a histogram."""
    buckets = f"sum by ({by}, le) (rate(acclimate_{metric}_bucket{{{WHERE}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {buckets})"


def heatmap(title: str, description: str, metric: str, unit: str, width: int = 8) -> Panel:
    """How a histogram changes over time."""
    buckets = f"sum by (le) (increase(acclimate_{metric}_bucket{{{WHERE}}}[$__rate_interval]))"
    return Panel(title, description, (Query(buckets, "{{le}}"),), unit, "heatmap", width=width)
