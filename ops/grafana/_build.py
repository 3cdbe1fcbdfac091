"""Boards as Grafana's JSON, by the typed builders of grafana-foundation-sdk."""

from __future__ import annotations

import json
from itertools import count

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from ops.grafana._board import PAGE, WHERE, Board, Panel, Query

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
Drawn = timeseries.Panel | stat.Panel | heatmap.Panel | table.Panel
Variable = dashboard.DatasourceVariable | dashboard.QueryVariable | dashboard.TextBoxVariable


def document(board: Board) -> str:
    """The board's JSON."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["acclimate"])
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    for variable in _variables(board):
        made = made.with_variable(variable)
    for annotation in _annotations():
        made = made.annotation(annotation)
    made = made.link(_boards()).link(_runbook("Runbook", ""))
    numbers = count(1)
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            made = made.with_panel(_panel(panel).id(next(numbers)))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variables(board: Board) -> list[Variable]:
    source = dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    found: list[Variable] = [
        source,
        _choice("model", "Model", 'label_values(acclimate_model_info{job="acclimate"}, model)'),
    ]
    if board.sessions:
        named = f"label_values(acclimate_session_theta_distance_ratio{{{WHERE}}}, session)"
        found.append(_choice("session", "Session", named))
    runbook = dashboard.TextBoxVariable("runbook").label("Runbook at").default_value(PAGE)
    return [*found, runbook]


def _choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(SOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(text="All", value="$__all"))
    )


def _annotations() -> list[dashboard.AnnotationQuery]:
    undone = f"sum by (model, reason) (increase(acclimate_adaptation_rollbacks_total{{{WHERE}}}[$__rate_interval])) > 0"
    back = f"sum by (model, reason) (increase(acclimate_restorations_total{{{WHERE}}}[$__rate_interval])) > 0"
    info = f"acclimate_model_info{{{WHERE}}}"
    return [
        dashboard.AnnotationQuery().name(name).expr(expr).datasource(SOURCE).icon_color(colour).enable(True)
        for name, expr, colour in (
            ("Roll-backs", undone, "orange"),
            ("Sessions taken back", back, "red"),
            ("Model changes", f"{info} unless {info} offset 1m", "blue"),
        )
    ]


def _boards() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Acclimate").type(model.DashboardLinkType.DASHBOARDS).tags(["acclimate"])
    return link.as_dropdown(True).include_vars(True).keep_time(True)


def _runbook(title: str, alert: str) -> dashboard.DashboardLink:
    anchor = f"#{alert.lower()}" if alert else ""
    return dashboard.DashboardLink(title).type(model.DashboardLinkType.LINK).url(f"${{runbook}}{anchor}").icon("doc")


def _panel(panel: Panel) -> Drawn:
    made = _drawn(panel)
    made = made.title(panel.title).description(panel.description).datasource(SOURCE).unit(panel.unit)
    made = made.span(panel.width).height(panel.height)
    if panel.alert:
        made = made.links([_runbook(panel.alert, panel.alert)])
    if panel.least is not None:
        made = made.min(panel.least)
    if panel.most is not None:
        made = made.max(panel.most)
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        made = made.with_target(_target(panel, query, letter))
    return made


def _drawn(panel: Panel) -> Drawn:
    steps = [model.Threshold(color=colour, value=value) for colour, value in panel.steps]
    thresholds = dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    match panel.kind:
        case "timeseries":
            lines = common.GraphThresholdsStyleConfig().mode(
                common_model.GraphTresholdsStyleMode.DASHED if len(steps) > 1 else
                common_model.GraphTresholdsStyleMode.OFF
            )  # fmt: skip
            return timeseries.Panel().thresholds(thresholds).thresholds_style(lines).fill_opacity(8)
        case "stat":
            latest = common.ReduceDataOptions().calcs(["lastNotNull"])
            colour = common_model.BigValueColorMode.BACKGROUND
            return stat.Panel().thresholds(thresholds).color_mode(colour).reduce_options(latest)
        case "heatmap":
            colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
            return heatmap.Panel().color(colours).show_legend()
        case "table":
            return table.Panel().thresholds(thresholds)


def _target(panel: Panel, query: Query, letter: str) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).ref_id(letter).legend_format(query.legend or "__auto")
    match panel.kind:
        case "timeseries":
            return made.range().exemplar("_bucket" in query.expr)
        case "heatmap":
            return made.range().format(PromQueryFormat.HEATMAP)
        case "stat":
            return made.instant()
        case "table":
            return made.instant().format(PromQueryFormat.TABLE)
