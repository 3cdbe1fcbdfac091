"""One session: those that metrics name, which are the worst of their model."""

from __future__ import annotations

from ops.grafana._board import WHERE, Board, Panel, Query, Row, above, below

ONE = f'{WHERE}, session=~"$session"'
NAME = "{{model}} {{session}}"

WORST = Row("Which session is it?", (
    Panel("Drifts most", "Highest level of any signal now; 0 is the source. Named are the `metrics.top_sessions` worst "
          "of each model in drift, roll-backs and estimated accuracy: ask GetSession for any other.",
          (Query("sort_desc(max by (model, tenant, session, signal) "
                 f"(acclimate_session_drift_level_ratio{{{WHERE}}}))"),),
          "none", "table", steps=above(0.3, 1), alert="AcclimateDriftRising"),
    Panel("Seems to be answered worst", "Accuracy of its recent answers, estimated without labels.",
          (Query(f"sort(min by (model, tenant, session) (acclimate_session_estimated_accuracy_ratio{{{WHERE}}}))"),),
          "percentunit", "table", steps=below(0.8, 0.9), alert="AcclimateAccuracyDropped"),
    Panel("Is rolled back most", "Steps undone since it was opened.",
          (Query(f"sort_desc(max by (model, tenant, session) (acclimate_session_rollbacks{{{WHERE}}}))"),), "short",
          "table", alert="AcclimateRollbackStorm"),
))  # fmt: skip

HISTORY = Row("What became of it?", (
    Panel("Drift", "Level of each signal at the session's latest step.",
          (Query(f"max by (model, session, signal) (acclimate_session_drift_level_ratio{{{ONE}}})",
                 NAME + " {{signal}}"),), "none", steps=above(0.3, 1), width=12, least=0, alert="AcclimateDriftRising"),
    Panel("Estimated accuracy", "Of its recent answers, without labels; an adapted session flatters itself here.",
          (Query(f"min by (model, session) (acclimate_session_estimated_accuracy_ratio{{{ONE}}})", NAME),),
          "percentunit", width=12, least=0, most=1, alert="AcclimateAccuracyDropped"),
    Panel("Steps undone", "Since it was opened.",
          (Query(f"max by (model, session) (acclimate_session_rollbacks{{{ONE}}})", NAME),), "short", width=12, least=0,
          alert="AcclimateRollbackStorm"),
    Panel("Distance", "Of its parameters from the source's, relative to the source's norm.",
          (Query(f"max by (model, session) (acclimate_session_theta_distance_ratio{{{ONE}}})", NAME),), "percentunit",
          width=12, least=0),
))  # fmt: skip

BOARD = Board(
    "acclimate-session",
    "Acclimate: sessions",
    "Which session drifts, is answered worst or rolled back most, and what became of it.",
    (WORST, HISTORY),
    sessions=True,
)
