"""What adaptation costs: time, operations, energy, memory, disk."""

from __future__ import annotations

from ops.grafana._board import WHERE, Board, Panel, Query, Row, above, quantile, rate

REQUESTS = rate("requests_total")
TAKEN = rate("adaptation_steps_total", where=', outcome=~"applied|rolled_back"')
JOULES = 'sum(rate(acclimate_energy_joules_total{job="acclimate"}[$__rate_interval]))'

TIME = Row("Time", (
    Panel("Adaptation", "Seconds a second spent on steps: threads kept busy by learning.",
          (Query(rate("adaptation_seconds_total"), "{{model}}"),), "short", least=0),
    Panel("Share of the processor", "Of the processor time that the daemons use, about how much steps take.",
          (Query(f'sum(rate(acclimate_adaptation_seconds_total{{{WHERE}}}[$__rate_interval])) / '
                 'sum(rate(acclimate_cpu_seconds_total{job="acclimate"}[$__rate_interval]))', "adaptation"),),
          "percentunit", least=0),
    Panel("A request's share", "Adaptation time for each request that was answered.",
          (Query(f"{rate('adaptation_seconds_total')} / ({REQUESTS} > 0)", "{{model}}"),), "s", least=0),
    Panel("Budget", "Adaptation time that budgets paid for and could not pay for, seconds a second.",
          (Query(rate("budget_granted_seconds_total"), "{{model}} granted"),
           Query(rate("budget_denied_seconds_total"), "{{model}} denied")), "short", least=0,
          alert="AcclimateBudgetStarved"),
    Panel("Denied", "Share of the time asked for that was denied, over 15 minutes.",
          (Query(f"model:acclimate_budget_denied:ratio_rate15m{{{WHERE}}}", "{{model}}"),), "percentunit",
          steps=above(0.25, 0.5), least=0, most=1, alert="AcclimateBudgetStarved"),
    Panel("A step", "Time of a step that was taken, for one session.",
          (Query(f"{rate('adaptation_seconds_total')} / ({TAKEN} > 0)", "{{model}}"),), "s", least=0),
))  # fmt: skip

WORK = Row("Work and energy", (
    Panel("Operations", "Floating-point operations a second: answering and looking, and gradients.",
          (Query(rate("forward_flops_total"), "{{model}} forward"),
           Query(rate("backward_flops_total"), "{{model}} backward")), "flops", least=0),
    Panel("Samples", "Samples a second answered, run forward in order to adapt, and that a gradient was computed for.",
          (Query(rate("samples_total"), "{{model}} answered"),
           Query(rate("adaptation_forward_samples_total"), "{{model}} forward"),
           Query(rate("adaptation_backward_samples_total"), "{{model}} backward")), "ops", least=0),
    Panel("Power", "Of the whole machine, where RAPL or NVML tells; empty where neither does.",
          (Query('sum by (instance, source) (rate(acclimate_energy_joules_total{job="acclimate"}[$__rate_interval]))',
                 "{{instance}} {{source}}"),), "watt", least=0),
    Panel("Energy of a request", "Of the machine's energy, the share of each request; empty where nothing tells.",
          (Query(f"{JOULES} / (sum({REQUESTS}) > 0)", "joules"),), "joule", least=0),
))  # fmt: skip

KEPT = Row("Memory and disk", (
    Panel("State", "Of all open sessions, snapshots among it.",
          (Query(f"sum by (model) (acclimate_session_state_bytes{{{WHERE}}})", "{{model}} state"),
           Query(f"sum by (model) (acclimate_session_snapshot_bytes{{{WHERE}}})", "{{model}} snapshots")), "bytes",
          least=0),
    Panel("Waiting to be learnt from", "Samples in buffers.",
          (Query(f"sum by (model) (acclimate_buffered_samples{{{WHERE}}})", "{{model}}"),), "short", least=0),
    Panel("Graphs of one session", "Sessions answered by a graph of their own.",
          (Query(f"sum by (model) (acclimate_specialised_sessions{{{WHERE}}})", "{{model}}"),), "short", least=0),
    Panel("Store", "Size on disk.", (Query('acclimate_store_bytes{job="acclimate"}', "{{instance}}"),), "bytes",
          least=0, alert="AcclimateStoreFailing"),
    Panel("Transactions", "99th percentile of a transaction, waiting for the disk included.",
          (Query("histogram_quantile(0.99, sum by (instance, le) (rate("
                 'acclimate_store_transaction_duration_seconds_bucket{job="acclimate"}[$__rate_interval])))',
                 "{{instance}}"),), "s", least=0, alert="AcclimateStoreLagging"),
    Panel("A batch in the engine", "Median and 99th percentile.",
          (Query(quantile(0.5, "predict_duration_seconds"), "{{model}} p50"),
           Query(quantile(0.99, "predict_duration_seconds"), "{{model}} p99")), "s", least=0),
))  # fmt: skip

BOARD = Board(
    "acclimate-cost",
    "Acclimate: cost",
    "What adaptation costs in time, operations, energy, memory and disk, beside what answering costs.",
    (TIME, WORK, KEPT),
)
