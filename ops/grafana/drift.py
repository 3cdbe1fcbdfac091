"""Adaptation: do streams drift, does adapting to them help, and what did the guards have to undo."""

from __future__ import annotations

from ops.grafana._board import WHERE, Board, Panel, Query, Row, above, below, heatmap, rate

SHADOW = rate("shadow_samples_total")

HELPS = Row("Does adapting help?", (
    Panel("Adapted less frozen", "Accuracy of adapted sessions less that of the frozen model on the same samples, over "
          "30 minutes. Labelled is measured. Estimated flatters adapted answers: believe it when it is below 0.",
          (Query(f"model:acclimate_adaptation_gain:labelled_rate30m{{{WHERE}}}", "{{model}} labelled"),
           Query(f"model:acclimate_adaptation_gain:estimated_rate30m{{{WHERE}}}", "{{model}} estimated")),
          "percentunit", steps=below(-0.05, 0), alert="AcclimateAdaptationHarmful"),
    Panel("Accuracy", "Of recent answers: estimated by thresholded confidence and by difference of confidences, and "
          "measured where labels are sent.",
          (Query(f"min by (model) (acclimate_estimated_accuracy_ratio{{{WHERE}}})", "{{model}} estimated"),
           Query(f"min by (model) (acclimate_estimated_accuracy_doc_ratio{{{WHERE}}})", "{{model}} by confidence"),
           Query(f"min by (model) (acclimate_prequential_accuracy_ratio{{{WHERE}}})", "{{model}} labelled")),
          "percentunit", least=0, most=1, alert="AcclimateAccuracyDropped"),
    Panel("Confident answers", "Share of the compared samples that each answers confidently: its estimated accuracy.",
          (Query(f"{rate('shadow_confident_total', 'model, answer')} / on (model) group_left () ({SHADOW} > 0)",
                 "{{model}} {{answer}}"),), "percentunit", least=0, most=1, alert="AcclimateAdaptationHarmful"),
    Panel("Answers that differ", "Share of the compared samples that adapted sessions and the frozen model answer "
          "differently: how much adapting changes, for better or worse.",
          (Query(f"{rate('shadow_disagreed_total')} / ({SHADOW} > 0)", "{{model}}"),), "percentunit", least=0, most=1),
    heatmap("Entropy", "Of served predictions. A drift shows as a band that climbs.", "entropy_nats", "none"),
    heatmap("Confidence", "Probability of the answered class.", "confidence_ratio", "percentunit"),
))  # fmt: skip

DRIFTS = Row("Do streams drift?", (
    Panel("Furthest session", "Highest level of each signal among open sessions, averaged over 5 minutes; 0 is the "
          "source. Above 0.3 (statistics and parameters: 1) it counts as drift.",
          (Query(f"max by (model, signal) (model_signal:acclimate_drift_level_ratio:max_avg5m{{{WHERE}}})",
                 "{{model}} {{signal}}"),), "none", steps=above(0.3, 1), least=0, alert="AcclimateDriftRising"),
    Panel("All sessions", "Mean level of each signal: whether one camera is dirty or the whole fleet sees fog.",
          (Query(f"avg by (model, signal) (acclimate_drift_level_mean_ratio{{{WHERE}}})", "{{model}} {{signal}}"),),
          "none", least=0),
    Panel("Changes found", "Changes that detectors found in streams, by what changed.",
          (Query(f"sum by (model, reason) (increase(acclimate_drifts_total{{{WHERE}}}[$__rate_interval]))",
                 "{{model}} {{reason}}"),), "short", least=0, alert="AcclimateDriftUnhandled"),
    Panel("Distance", "Largest distance of a session's parameters from the source's, relative to the source's norm.",
          (Query(f"max by (model) (acclimate_theta_distance_max_ratio{{{WHERE}}})", "{{model}}"),), "percentunit",
          least=0),
    Panel("Falling behind", "Sessions answered by the source's model until steps catch up; samples dropped unlearnt.",
          (Query(rate("fell_behind_total"), "{{model}} behind"),
           Query(rate("dropped_samples_total"), "{{model}} dropped")), "ops", least=0, alert="AcclimateSessionsBehind"),
))  # fmt: skip

GUARDED = Row("What was learnt, and undone", (
    Panel("Steps", "Adaptation steps a second by outcome.",
          (Query(rate("adaptation_steps_total", "model, outcome"), "{{model}} {{outcome}}"),), "ops", least=0),
    Panel("Rolled back", "Share of the steps that a guard undid, over 15 minutes.",
          (Query(f"model:acclimate_adaptation_steps_rolled_back:ratio_rate15m{{{WHERE}}}", "{{model}}"),),
          "percentunit", steps=above(0.1, 0.25), least=0, most=1, alert="AcclimateRollbackStorm"),
    Panel("By guard", "Steps undone, by the guard that refused them.",
          (Query(f"sum by (model, reason) (increase(acclimate_adaptation_rollbacks_total{{{WHERE}}}"
                 "[$__rate_interval]))", "{{model}} {{reason}}"),), "short", least=0, alert="AcclimateCollapse"),
    Panel("Taken back", "Sessions taken back to a checkpoint, a snapshot or the source, by reason.",
          (Query(f"sum by (model, reason) (increase(acclimate_restorations_total{{{WHERE}}}[$__rate_interval]))",
                 "{{model}} {{reason}}"),), "short", least=0),
    Panel("Not taken", "Steps not taken a second, by reason: `resting` is well, `budget` and `store` are not.",
          (Query(rate("adaptation_skipped_total", "model, reason"), "{{model}} {{reason}}"),), "ops", least=0,
          alert="AcclimateBudgetStarved"),
))  # fmt: skip

BOARD = Board(
    "acclimate-drift",
    "Acclimate: drift and adaptation",
    "Do streams drift, does adapting to them help, and what did the guards have to undo?",
    (HELPS, DRIFTS, GUARDED),
)
