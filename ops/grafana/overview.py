"""The fleet: are requests answered, in time, and is there room for more."""

from __future__ import annotations

from ops.grafana._board import WHERE, Board, Panel, Query, Row, above, below, heatmap, quantile, rate

ANSWERED = f"1 - max(model:acclimate_requests_failed:ratio_rate1h{{{WHERE}}})"
IN_TIME = f"1 - max(model:acclimate_requests_slow:ratio_rate1h{{{WHERE}}})"
FIRING = 'sum(ALERTS{alertstate="firing", alertname=~"Acclimate.*"}) or vector(0)'


def _burn(kind: str, budget: float) -> tuple[Query, ...]:
    return tuple(
        Query(f"max by (model) (model:acclimate_requests_{kind}:ratio_rate{window}{{{WHERE}}}) / {budget}",
              f"{{{{model}}}} over {window}")
        for window in ("5m", "1h", "6h")
    )  # fmt: skip


def _stat(title: str, description: str, expr: str, unit: str, **options: object) -> Panel:
    return Panel(title, description, (Query(expr),), unit, "stat", width=4, height=4, **options)  # type: ignore[arg-type]


OBJECTIVES = Row("Objectives", (
    _stat("Answered", "Share of the last hour's requests that did not fail, of the worst model; 99.9 % is the "
          "objective.", ANSWERED, "percentunit", steps=below(0.999, 0.9995), alert="AcclimateErrorBudgetBurnFast"),
    _stat("In time", "Share of the last hour's requests answered within 0.256 s, of the worst model; 99 % is the "
          "objective.", IN_TIME, "percentunit", steps=below(0.99, 0.995), alert="AcclimateLatencyBudgetBurnFast"),
    _stat("Requests", "Requests a second over all models.",
          f"sum(rate(acclimate_requests_total{{{WHERE}}}[$__rate_interval]))", "reqps"),
    _stat("In memory", "Open sessions in memory.", f"sum(acclimate_sessions{{{WHERE}}})", "short"),
    _stat("Ready", "Share of the daemons that accept work.", 'avg(acclimate_ready{job="acclimate"})', "percentunit",
          steps=below(0.5, 1), alert="AcclimateNotReady"),
    _stat("Alerts", "Alerts of ours that fire now.", FIRING, "short", steps=above(1, 2)),
))  # fmt: skip

REQUESTS = Row("Requests", (
    Panel("By outcome", "Requests a second by status code. RESOURCE_EXHAUSTED says that there was too much.",
          (Query(rate("requests_total", "model, code") + " > 0", "{{model}} {{code}}"),), "reqps",
          alert="AcclimateOverloaded"),
    Panel("Latency", "From arrival to answer: median, 95th, 99th percentile. Points are exemplars: one request each.",
          tuple(Query(quantile(share, "request_duration_seconds"), f"{{{{model}}}} p{round(100 * share)}")
                for share in (0.5, 0.95, 0.99)), "s", steps=above(0.256), least=0,
          alert="AcclimateLatencyBudgetBurnFast"),
    heatmap("Latencies", "Where answers lie, and not only their percentiles.", "request_duration_seconds", "s"),
    Panel("Errors burn the budget", "Failures over what 99.9 % allow: 14.4 is a month's budget in two days.",
          _burn("failed", 0.001), "none", steps=above(6, 14.4), least=0, alert="AcclimateErrorBudgetBurnFast"),
    Panel("Slowness burns the budget", "Slow answers over what 99 % allow: 14.4 is a month's budget in two days.",
          _burn("slow", 0.01), "none", steps=above(6, 14.4), least=0, alert="AcclimateLatencyBudgetBurnFast"),
    Panel("Queueing", "99th percentile of the wait for an engine, and of the engine itself for a batch.",
          (Query(quantile(0.99, "queue_duration_seconds"), "{{model}} queue"),
           Query(quantile(0.99, "predict_duration_seconds"), "{{model}} engine")), "s", least=0),
))  # fmt: skip

ROOM = Row("Room", (
    Panel("Requests waiting", "Waiting for an engine; `scheduler.max_queue` is where they are refused.",
          (Query('acclimate_queue_depth{job="acclimate"}', "{{instance}}"),), "short", least=0,
          alert="AcclimateOverloaded"),
    Panel("Batches", "Samples predicted together, on average.",
          (Query(f"{rate('batch_samples_sum')} / ({rate('batch_samples_count')} > 0)", "{{model}}"),), "short",
          least=0),
    Panel("Memory", "Resident memory of each daemon.",
          (Query('acclimate_resident_memory_bytes{job="acclimate"}', "{{instance}} memory"),), "bytes", least=0),
    Panel("Cores in use", "Processor seconds a second.",
          (Query('rate(acclimate_cpu_seconds_total{job="acclimate"}[$__rate_interval])', "{{instance}}"),), "short",
          least=0),
    Panel("Sessions", "Open sessions by what answers them and whether they learn.",
          (Query(f"sum by (model, state) (acclimate_sessions{{{WHERE}}}) > 0", "{{model}} {{state}}"),), "short",
          least=0),
    Panel("What a crash would lose", "Age of the oldest commit that is not written; learning waits where it grows.",
          (Query('acclimate_store_oldest_pending_seconds{job="acclimate"}', "{{instance}}"),), "s", least=0,
          steps=above(1, 10), alert="AcclimateStoreLagging"),
    Panel("In and out of memory", "Sessions that left memory for the store, and that returned, a second.",
          (Query('rate(acclimate_store_evictions_total{job="acclimate"}[$__rate_interval])', "{{instance}} left"),
           Query('rate(acclimate_store_returns_total{job="acclimate"}[$__rate_interval])', "{{instance}} returned")),
          "ops", least=0),
    Panel("Rpcs refused", "Finished rpcs a second that were not OK, by method and code.",
          (Query('sum by (rpc, code) (rate(acclimate_rpcs_total{job="acclimate", code!="OK"}[$__rate_interval])) '
                 "or vector(0)", "{{rpc}} {{code}}"),), "reqps", least=0),
    Panel("Callers turned away", "A second, by why.",
          (Query('sum by (reason) (rate(acclimate_auth_failures_total{job="acclimate"}[$__rate_interval]))',
                 "{{reason}}"),), "reqps", least=0),
))  # fmt: skip

BOARD = Board(
    "acclimate-overview",
    "Acclimate: overview",
    "Are requests answered, in time, and is there room for more? Objectives: 99.9 % succeed, 99 % within 0.256 s.",
    (OBJECTIVES, REQUESTS, ROOM),
)
