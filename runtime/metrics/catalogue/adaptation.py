"""Steps of adaptation: what came of them, and what they cost."""

from __future__ import annotations

from acclimate.adapters.outcome import Outcome
from acclimate.runtime.metrics.catalogue.rows import ModelMetric

OUTCOMES = tuple(dict.fromkeys(outcome.kind for outcome in Outcome))


def _reasons(kind: str) -> tuple[str, ...]:
    return tuple(outcome.reason for outcome in Outcome if outcome.kind == kind)


ROWS = (
    ModelMetric(
        "adaptation_steps_total", "counter", "Adaptation steps, counted once per session, by outcome.",
        lambda m: m.steps, "outcome", OUTCOMES,
    ),
    ModelMetric(
        "adaptation_skipped_total", "counter", "Adaptation steps not taken, by reason.", lambda m: m.skipped,
        "reason", _reasons("skipped"),
    ),
    ModelMetric(
        "adaptation_rollbacks_total", "counter", "Adaptation steps undone by a guard, by guard.",
        lambda m: m.rollbacks, "reason", _reasons("rolled_back"),
    ),
    ModelMetric(
        "restorations_total", "counter", "Sessions taken back to a checkpoint, a snapshot or the source, by reason.",
        lambda m: m.restorations, "reason",
        ("strikes", "starved", "drift", "canary", "collapse", "periodic", "recovery", "snapshot"),
    ),
    ModelMetric(
        "adaptation_seconds_total", "counter", "Time spent on adaptation.", lambda m: m.adaptation_seconds
    ),
    ModelMetric(
        "adaptation_forward_samples_total", "counter", "Samples run forward in order to adapt.",
        lambda m: m.forward_samples,
    ),
    ModelMetric(
        "adaptation_backward_samples_total", "counter", "Samples that a gradient was computed for.",
        lambda m: m.backward_samples,
    ),
    ModelMetric(
        "forward_flops_total", "counter", "Floating-point operations of forward passes, estimated from the "
        "bundle's cost per sample.", lambda m: m.forward_flops,
    ),
    ModelMetric(
        "backward_flops_total", "counter", "Floating-point operations of gradient passes, estimated from the "
        "bundle's cost per sample.", lambda m: m.backward_flops,
    ),
    ModelMetric(
        "budget_granted_seconds_total", "counter", "Adaptation time that budgets paid for.",
        lambda m: m.budget_granted_ms / 1e3,
    ),
    ModelMetric(
        "budget_denied_seconds_total", "counter", "Adaptation time that budgets could not pay for, foreseen.",
        lambda m: m.budget_denied_ms / 1e3,
    ),
    ModelMetric("buffered_samples", "gauge", "Samples waiting to be learnt from.", lambda m: m.buffered),
    ModelMetric(
        "dropped_samples_total", "counter", "Samples given up unlearnt because a session's buffer was full.",
        lambda m: m.dropped,
    ),
    ModelMetric(
        "fell_behind_total", "counter", "Times that steps could not keep up with a session's stream, so that the "
        "source's model answered it until they had.", lambda m: m.fell_behind,
    ),
)  # fmt: skip
