"""What is scraped is what the catalogue says and what the service counted."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from prometheus_client import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from acclimate.runtime.client import Client, ClientError
from acclimate.runtime.metrics.catalogue import ALL, MODEL, PROCESS
from acclimate.runtime.metrics.catalogue.page import markdown
from acclimate.runtime.metrics.catalogue.rows import CODES, PREFIX, ModelMetric, Row
from acclimate.runtime.metrics.collector import registry
from tests.conftest import ROOT
from tests.polling import until
from tests.runtime.rpc.loopback import MODEL as SERVED
from tests.runtime.rpc.loopback import Loopback, samples, serving

UNITS = ("_seconds", "_bytes", "_ratio", "_nats", "_total", "_samples", "_info")
# Plain counts of things: the thing is the unit.
COUNTS = {
    "ready", "draining", "queue_depth", "watchers", "sessions", "specialised_sessions", "session_snapshots", "models",
    "inference_streams", "session_rollbacks", "requests_under_way", "overloaded",
    "tenant_sessions", "store_sessions", "store_failing", "store_pending_commits",
}  # fmt: skip

# No series before the first answer, or the first label: an accuracy of 0 would be a lie.
UNKNOWN = {"estimated_accuracy_ratio", "estimated_accuracy_doc_ratio", "prequential_accuracy_ratio"}


def scrape(running: Loopback) -> dict[str, Metric]:
    text = generate_latest(registry(running.service.snapshot, running.rpc.stats.counts)).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family: Metric, suffix: str = "") -> dict[tuple[str, ...], float]:
    """Label values other than the model's, joined -> value."""
    return {
        tuple(value for key, value in sorted(sample.labels.items()) if key != "model"): sample.value
        for sample in family.samples
        if sample.name.endswith(suffix)
    }


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: str(metric.name))
def test_names_follow_the_conventions(metric: Row) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert metric.name in COUNTS or metric.name.endswith(UNITS)
    assert metric.help.endswith(".")


def test_names_are_unique_and_labels_bounded() -> None:
    names = [metric.name for metric in ALL]
    assert len(set(names)) == len(names)
    assert {metric.label for metric in MODEL} <= {"", "code", "state", "outcome", "reason", "signal", "answer"}
    process = {"version", "rpc", "code", "reason", "quota", "model", "outcome", "source", "tenant"}
    assert {label for metric in PROCESS for label in metric.labels} == process


def test_zeros_are_exported_before_anything_happened() -> None:
    with serving() as fresh:
        families = scrape(fresh)
    assert set(families) == {PREFIX + metric.name.removesuffix("_total") for metric in ALL}
    assert values(families["acclimate_requests"]) == {(code,): 0.0 for code in CODES}
    for metric in MODEL:
        family = families[PREFIX + metric.name.removesuffix("_total")]
        assert family.type == metric.kind
        assert {sample.labels["model"] for sample in family.samples} == (set() if metric.name in UNKNOWN else {SERVED})
        if metric.values:
            assert values(family) == {(value,): 0.0 for value in metric.values}


def test_figures_are_those_of_the_service(loopback: Loopback) -> None:
    with Client(loopback.target) as client:
        session = client.create_session(SERVED, "counted", recipe="tent")
        for step in range(8):
            answer = session.predict(samples(8, step))
        session.feedback(answer.request_id, int(answer.labels[0]))
        with pytest.raises(ClientError):
            client.predict(SERVED, samples()[:, :2])
        until(lambda: session.get().updates == 2, "two updates")
    families = scrape(loopback)
    requests = values(families["acclimate_requests"])
    assert (requests[("OK",)], requests[("INVALID_ARGUMENT",)]) == (8, 1)
    assert values(families["acclimate_samples"]) == {(): 64}
    states = values(families["acclimate_sessions"])
    assert {state for (state,), count in states.items() if count} == {"adapted"}
    assert set(states) == {("adapted",), ("pristine",), ("paused_adapted",), ("paused_pristine",)}
    assert values(families["acclimate_adaptation_steps"])[("applied",)] == 2
    assert values(families["acclimate_labelled"]) == values(families["acclimate_labelled_correct"]) == {(): 1}
    assert values(families["acclimate_prequential_accuracy_ratio"]) == {(): 1}
    assert 0 < values(families["acclimate_estimated_accuracy_ratio"])[()] <= 1
    rpcs = values(families["acclimate_rpcs"])
    assert rpcs["OK", "GRPCInferenceService/ModelInfer"] == 8
    assert rpcs["INVALID_ARGUMENT", "GRPCInferenceService/ModelInfer"] == 1
    assert values(families["acclimate_resident_memory_bytes"])[()] > 2**20


@pytest.mark.parametrize("metric", [m for m in MODEL if m.kind == "histogram"], ids=lambda metric: str(metric.name))
def test_histograms_are_cumulative_and_complete(metric: ModelMetric) -> None:
    with serving() as running:
        with Client(running.target) as client:
            for rows in (1, 2, 5):
                client.predict(SERVED, samples(rows))
        family = scrape(running)[PREFIX + metric.name]
    buckets = [sample for sample in family.samples if sample.name.endswith("_bucket")]
    counts = [sample.value for sample in buckets]
    bounds = [float(sample.labels["le"]) for sample in buckets]
    assert counts == sorted(counts)
    assert bounds == sorted(bounds)
    assert bounds[-1] == float("inf")
    (count,) = (sample.value for sample in family.samples if sample.name.endswith("_count"))
    (total,) = (sample.value for sample in family.samples if sample.name.endswith("_sum"))
    assert count == counts[-1] > 0
    assert total > 0


def test_the_openmetrics_form_parses_too(loopback: Loopback) -> None:
    from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

    text = generate_openmetrics(registry(loopback.service.snapshot)).decode()
    assert {family.name for family in parse_openmetrics(text)} >= {"acclimate_ready", "acclimate_requests"}


def test_promtool_has_nothing_to_say(loopback: Loopback) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on the path; Debian's package `prometheus` has it")
    text = generate_latest(registry(loopback.service.snapshot, loopback.rpc.stats.counts))
    for command, stdin in (
        (["check", "metrics"], text),
        (["check", "config", str(ROOT / "ops" / "prometheus" / "prometheus.yml")], b""),
    ):
        result = subprocess.run([promtool, *command], input=stdin, capture_output=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


def test_documentation_is_current() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == markdown(), "run: python -m acclimate.runtime.metrics.catalogue > docs/metrics.md"
